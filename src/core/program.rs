//! What a program's file is to the kernel, by its first bytes.
//!
//! Only what is the same for every kernel is said: [`Kind::Unclear`] is the rest.

/// Bytes of a file by which the kernel tells what it is; older kernels take fewer.
pub const HEAD_BYTES: usize = 256;
/// In how many of them the first line of a script ends for every kernel.
const LINE_BYTES: usize = 128 - 1;
/// Machines in the heads of programs that the kernel of this architecture may run. Its own is the first one; the others have
/// 32 bits: 386 and 486, and ARM.
const MACHINES: &[u16] = if cfg!(target_arch = "aarch64") { &[AARCH64, 40] } else { &[X86_64, 3, 6] };
const NATIVE: u16 = MACHINES[0];
const X86_64: u16 = 62;
const AARCH64: u16 = 183;
/// Programs, and programs that can be anywhere in memory.
const TYPES: [u16; 2] = [2, 3];
/// Marks the entry of a program's table that names its interpreter.
const INTERPRETER: u32 = 3;
/// Bytes of such a table, at most.
const TABLE_BYTES: usize = 65_536;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be run by this program.
    Script(String),
    /// A program for this kernel, if its interpreter is there, if it has one.
    Program(Table),
    /// Text that names nobody to run it, or nothing at all.
    Text,
    /// Nothing that this kernel runs, unless it has learned to.
    Foreign,
    Unclear,
}

/// Where in its file a program's table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    wide: bool,
    pub at: u64,
    /// Bytes.
    pub length: usize,
}

/// Of the first bytes of a file: all of it, or [`HEAD_BYTES`].
pub fn kind(head: &[u8]) -> Kind {
    match head {
        [b'#', b'!', line @ ..] => script(line),
        [0x7f, b'E', b'L', b'F', ..] => {
            // What is missing is zero to the kernel.
            let mut padded = head.to_vec();
            padded.resize(head.len().max(HEAD_BYTES), 0);
            program(&padded).unwrap_or(Kind::Unclear)
        }
        _ if is_text(head) => Kind::Text,
        _ => Kind::Foreign,
    }
}

fn is_text(head: &[u8]) -> bool {
    head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
}

fn script(after_mark: &[u8]) -> Kind {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let end = after_mark.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(after_mark.len());
    if end + 2 > LINE_BYTES {
        return Kind::Unclear;
    }
    let line = &after_mark[..end];
    let begin = line.iter().position(|byte| !blank(byte)).unwrap_or(end);
    let name = line[begin..].split(blank).next().unwrap_or_default();
    match std::str::from_utf8(name) {
        Ok("") => Kind::Text,
        Ok(name) => Kind::Script(name.to_owned()),
        Err(_) => Kind::Unclear,
    }
}

/// `None`: that can't be told.
fn program(head: &[u8]) -> Option<Kind> {
    let (class, order) = (*head.get(4)?, *head.get(5)?);
    let machine = u16_at(head, 18)?;
    if !MACHINES.contains(&machine) || !TYPES.contains(&u16_at(head, 16)?) {
        return Some(Kind::Foreign);
    }
    let wide = machine == NATIVE;
    if order != 1 || class != if wide { 2 } else { 1 } {
        return None;
    }
    let at = if wide { u64_at(head, 32)? } else { u64::from(u32_at(head, 28)?) };
    let (size, count) = if wide { (54, 56) } else { (42, 44) };
    let entry = usize::from(u16_at(head, size)?);
    let length = entry * usize::from(u16_at(head, count)?);
    (entry == entry_bytes(wide) && length <= TABLE_BYTES).then_some(Kind::Program(Table { wide, at, length }))
}

const fn entry_bytes(wide: bool) -> usize {
    if wide { 56 } else { 32 }
}

impl Table {
    /// Where in the file the path of the interpreter is, and how long it is; of the table's bytes.
    pub fn interpreter(&self, table: &[u8]) -> Option<(u64, usize)> {
        let entry = table.chunks_exact(entry_bytes(self.wide)).find(|e| u32_at(e, 0) == Some(INTERPRETER))?;
        let (at, length) = if self.wide {
            (u64_at(entry, 8)?, u64_at(entry, 32)?)
        } else {
            (u64::from(u32_at(entry, 4)?), u64::from(u32_at(entry, 16)?))
        };
        Some((at, usize::try_from(length).ok()?))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_who_runs_them_as_the_kernel_reads_it() {
        let script = |path: &str| Kind::Script(path.to_owned());
        let rows: [(&[u8], Kind); 13] = [
            (b"#!/bin/bash\n", script("/bin/bash")),
            (b"#!/bin/bash", script("/bin/bash")),
            (b"#! \t/bin/sh -e\nexit 3", script("/bin/sh")),
            (b"#!/usr/bin/env -S sh -c\n", script("/usr/bin/env")),
            (b"#!/bin/sh\r\n", script("/bin/sh\r")),
            (b"#!bash\n", script("bash")),
            (b"#!\n/bin/sh\n", Kind::Text),
            (b"#!  \t\n", Kind::Text),
            (b"#!", Kind::Text),
            (b"", Kind::Text),
            (b"# /bin/sh\n", Kind::Text),
            (b"#!/bin/\xff\n", Kind::Unclear),
            (&[b'#', b'!', b'/'].iter().copied().chain([b'x'; 200]).collect::<Vec<_>>(), Kind::Unclear),
        ];
        for (head, expected) in rows {
            assert_eq!(kind(head), expected, "{head:?}");
        }
    }

    fn low(machine: u16) -> u8 {
        machine.to_le_bytes()[0]
    }

    /// The head of a program for this machine, with a table of two entries after it, of which the second one names the
    /// interpreter.
    fn native() -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[16], file[18], file[32], file[54], file[56]) = (3, low(NATIVE), 64, 56, 2);
        (file[64], file[64 + 56], file[64 + 56 + 8], file[64 + 56 + 32]) = (1, 3, 200, 28);
        file
    }

    #[test]
    fn programs_name_their_interpreter_in_a_table() {
        let file = native();
        let Kind::Program(table) = kind(&file) else { panic!("no program") };
        assert_eq!((table.at, table.length), (64, 112));
        assert_eq!(table.interpreter(&file[64..]), Some((200, 28)));
        assert_eq!(table.interpreter(&file[64..64 + 56]), None, "one that needs none");
        assert_eq!(table.interpreter(&[]), None);
    }

    /// This very program is one for the machine that runs it.
    #[test]
    fn a_program_that_runs_here_is_one_for_this_machine() {
        let this = std::fs::read(std::env::current_exe().expect("this program")).expect("read");
        assert!(matches!(kind(&this[..HEAD_BYTES]), Kind::Program(_)));
    }

    #[test]
    fn what_is_for_another_machine_or_no_program_is_told_from_what_is_unclear() {
        let changed = |at: usize, byte: u8| {
            let mut file = native();
            file[at] = byte;
            kind(&file)
        };
        for machine in [X86_64, AARCH64].map(low).into_iter().filter(|machine| *machine != low(NATIVE)) {
            assert_eq!(changed(18, machine), Kind::Foreign, "another machine");
        }
        assert_eq!(changed(18, 8), Kind::Foreign, "a machine of which there is no kernel here");
        assert_eq!(changed(16, 1), Kind::Foreign, "an object file");
        assert_eq!(changed(54, 57), Kind::Unclear);
        assert_eq!(changed(4, 1), Kind::Unclear, "the class of another machine");
        assert_eq!(changed(5, 2), Kind::Unclear);
        assert_eq!(kind(b"\x7fELF"), Kind::Foreign, "a head that is cut off");
        assert_eq!(kind(b"MZ\x90"), Kind::Foreign);
    }
}
