//! Calls on their whole way: over TLS, with certificates as a cluster has them, to an agent and back.
//! The API server and the agent are stand-ins that answer as they are told, over real connections.

mod access;
mod agents;
mod api_server;
mod lab;
mod limits;
