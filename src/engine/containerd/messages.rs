//! The messages of containerd's API that are needed, with the fields that are needed. The numbers are the API's.

use std::collections::HashMap;

use prost::Message;

/// Another message, and which.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Moment {
    /// Since 1970. What has not happened yet is in the year 1.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Moment {
    pub const fn has_come(self) -> bool {
        self.seconds > 0
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Version {
    #[prost(string, tag = "1")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ContainerId {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct OneContainer {
    #[prost(message, optional, tag = "1")]
    pub container: Option<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Filters {
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Containers {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(map = "string, string", tag = "2")]
    pub labels: HashMap<String, String>,
    #[prost(message, optional, tag = "4")]
    pub runtime: Option<Runtime>,
    /// OCI runtime spec, as JSON.
    #[prost(message, optional, tag = "5")]
    pub spec: Option<Any>,
    #[prost(message, optional, tag = "8")]
    pub created_at: Option<Moment>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Runtime {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Which process: that of the container itself if no exec is named. Also to start one, to wait for it and to delete it.
#[derive(Clone, PartialEq, Message)]
pub struct ProcessId {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct OneProcess {
    #[prost(message, optional, tag = "1")]
    pub process: Option<Process>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Process {
    /// 0: it has none.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// A pause of the container masks that of its processes.
    #[prost(enumeration = "Status", tag = "4")]
    pub status: i32,
    #[prost(uint32, tag = "9")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "10")]
    pub exited_at: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    /// Some versions say so, without an error, when nobody has answered them.
    Unknown = 0,
    Created = 1,
    Running = 2,
    Stopped = 3,
    Paused = 4,
    Pausing = 5,
}

#[derive(Clone, PartialEq, Message)]
pub struct NewExec {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub stdin: String,
    #[prost(string, tag = "3")]
    pub stdout: String,
    #[prost(string, tag = "4")]
    pub stderr: String,
    #[prost(bool, tag = "5")]
    pub terminal: bool,
    #[prost(message, optional, tag = "6")]
    pub spec: Option<Any>,
    #[prost(string, tag = "7")]
    pub exec_id: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Started {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Exited {
    #[prost(uint32, tag = "1")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "2")]
    pub exited_at: Option<Moment>,
}

impl Exited {
    /// Of an exec that failed to start this is told, too: with code 0, in the year 1.
    pub fn has_run(&self) -> bool {
        self.exited_at.is_some_and(Moment::has_come)
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Deleted {
    /// 0: it never had any.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Size {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
    #[prost(uint32, tag = "3")]
    pub width: u32,
    #[prost(uint32, tag = "4")]
    pub height: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Close {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
    #[prost(bool, tag = "3")]
    pub stdin: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pids {
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<Pid>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Pid {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

/// What has happened, and in whose namespace.
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// A process has ended.
#[derive(Clone, PartialEq, Message)]
pub struct TaskExit {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// Its exec, or its container if it was that one's own.
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(uint32, tag = "4")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "5")]
    pub exited_at: Option<Moment>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API's own encoder writes it.
    #[test]
    fn fields_have_the_numbers_of_the_api() {
        let exec = NewExec {
            container_id: "c".to_owned(),
            stdin: "i".to_owned(),
            stdout: "o".to_owned(),
            stderr: "e".to_owned(),
            terminal: true,
            spec: Some(Any { type_url: "t".to_owned(), value: b"v".to_vec() }),
            exec_id: "x".to_owned(),
        };
        let bytes = b"\x0a\x01c\x12\x01i\x1a\x01o\x22\x01e\x28\x01\x32\x06\x0a\x01t\x12\x01v\x3a\x01x";
        assert_eq!(exec.encode_to_vec(), bytes);
        // Process of a GetResponse, with fields that are not needed here.
        let bytes = b"\x0a\x14\x0a\x01c\x12\x01x\x18\x07\x20\x03\x2a\x01i\x48\x89\x01\x52\x02\x08\x05";
        let process = OneProcess::decode(&bytes[..]).expect("a process").process.expect("a process");
        let exited_at = Some(Moment { seconds: 5, nanos: 0 });
        assert_eq!(process, Process { pid: 7, status: Status::Stopped.into(), exit_status: 137, exited_at });
    }

    #[test]
    fn what_is_said_to_have_ended_in_the_year_1_has_not_run() {
        let never = Exited { exit_status: 0, exited_at: Some(Moment { seconds: -62_135_596_800, nanos: 0 }) };
        assert!(!never.has_run());
        assert!(!Exited { exit_status: 0, exited_at: None }.has_run());
        assert!(Exited { exit_status: 0, exited_at: Some(Moment { seconds: 1, nanos: 0 }) }.has_run());
    }
}
