//! Handover: an agent that stops gives the engine's open connections to its successor.

pub mod give;
