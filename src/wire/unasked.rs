//! Output for a terminal, without the questions in it.
//!
//! A terminal answers a question by typing. The answer to one in output of the past, or in output that is only watched,
//! reaches whoever reads the terminal by now. What such output shows, moves and sets is left as it is, byte for byte.
//! Of the modes in which a terminal reports by itself (the mouse, the focus, its size), it is noted which are on.
//!
//! Sources: xterm's ctlseqs, the protocols of kitty, iTerm2, mintty and rxvt, and the parser of Williams.

#![allow(clippy::match_same_arms, reason = "tables of a parser are read in their order")]

use std::collections::BTreeSet;

/// Bytes held back until it is known whether they are a question. A longer sequence that may be one is left out.
const MAX_HELD: usize = 64 * 1024;
const MAX_CSI: usize = 1024;
/// Digits of a number, with zeros before it.
const MAX_DIGITS: usize = 64;

const ENQ: u8 = 0x05;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;
const ESC: u8 = 0x1b;
/// The introducers, of one byte where text has eight bits; with UTF-8 they are characters.
const DECID: u8 = 0x9a;
const DCS: u8 = 0x90;
const CSI: u8 = 0x9b;
const ST: u8 = 0x9c;
const OSC: u8 = 0x9d;
const APC: u8 = 0x9f;
const SOS: u8 = 0x98;
const PM: u8 = 0x9e;
/// The first byte of these characters.
const C1: u8 = 0xc2;

/// Modes in which a terminal types without being typed at, and that of Tektronix, whose questions are others.
const REPORTING: [&[u8]; 14] = [
    b"9", b"38", b"1000", b"1001", b"1002", b"1003", b"1004", b"1005", b"1006", b"1015", b"1016", b"2031", b"2048",
    b"9001",
];
/// Operating system commands whose last field is text of any kind.
const FREE: [&[u8]; 13] = [b"", b"1", b"2", b"6", b"7", b"8", b"9", b"66", b"133", b"633", b"697", b"777", b"3008"];
/// Those that are answered whatever they say.
const ANSWERED: [&[u8]; 5] = [b"60", b"61", b"99", b"5113", b"5522"];
/// iTerm2's that are answered.
const ITERM: [&[u8]; 5] = [b"Report", b"Request", b"Capabilities", b"GetBackground", b"GetCapabilities"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    Csi,
    Dcs,
    Osc,
    Apc,
    /// In a string that is left out; within that of tmux an ESC is doubled.
    Out {
        tmux: bool,
    },
    /// There, after an ESC.
    OutEscape {
        tmux: bool,
    },
    /// In a control sequence that is left out.
    OutCsi,
}

#[derive(Debug, Default)]
pub struct Unasked {
    state: State,
    /// The sequence up to now, as it came.
    held: Vec<u8>,
    /// Where in it its content begins.
    content: usize,
    /// The first byte of what may be a C1 character.
    lead: bool,
    /// Bytes that belong to the character that has begun.
    rest: u8,
    reporting: BTreeSet<Vec<u8>>,
    /// What was let through last is a sequence or a string without its end. A question that ended it leaves a CAN.
    open: bool,
    out: Vec<u8>,
}

impl Unasked {
    /// The bytes without what a terminal answers. The beginning of what may be that is held back.
    pub fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut rest = bytes;
        while let Some((byte, more)) = rest.split_first() {
            let plain = |byte: &u8| (0x20..0x7f).contains(byte);
            if self.state == State::Text && !self.lead && self.rest == 0 && plain(byte) {
                let end = rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len());
                self.out.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
                continue;
            }
            self.decode(*byte);
            rest = more;
        }
        std::mem::take(&mut self.out)
    }

    /// From here on questions are welcome: what was held back, and the modes in which the terminal is to report.
    pub fn end(&mut self) -> Vec<u8> {
        if std::mem::take(&mut self.lead) {
            self.held.push(C1);
        }
        let mut all = std::mem::take(&mut self.held);
        for mode in std::mem::take(&mut self.reporting) {
            all = [b"\x1b[?", &mode[..], b"h", &all].concat();
        }
        self.state = State::Text;
        all
    }

    /// Tells C1 characters from bytes that are a part of another one.
    fn decode(&mut self, byte: u8) {
        if std::mem::take(&mut self.lead) {
            if (0x80..0xa0).contains(&byte) {
                return self.control(byte, &[C1, byte]);
            }
            self.text(C1);
            if (0xa0..0xc0).contains(&byte) {
                return self.text(byte);
            }
        }
        if self.rest > 0 && (0x80..0xc0).contains(&byte) {
            self.rest -= 1;
            return self.text(byte);
        }
        self.rest = match byte {
            0xc3..=0xdf => 1,
            0xe0..=0xef => 2,
            0xf0..=0xf4 => 3,
            _ => 0,
        };
        match byte {
            0x00..=0x7f => self.ascii(byte),
            0x80..=0x9f => self.control(byte, &[byte]),
            C1 => self.lead = true,
            _ => self.text(byte),
        }
    }

    /// A byte of a character that is not ASCII.
    fn text(&mut self, byte: u8) {
        match self.state {
            State::Text => self.out.push(byte),
            State::Osc | State::Apc => self.hold(byte),
            State::Escape | State::Csi | State::Dcs => {
                self.keep(true);
                self.out.push(byte);
            }
            State::Out { .. } | State::OutCsi => {}
            State::OutEscape { tmux } => self.state = State::Out { tmux },
        }
    }

    /// A C1 character: it ends whatever there is.
    fn control(&mut self, byte: u8, raw: &[u8]) {
        let left_out = self.end_string();
        self.state = State::Text;
        match byte {
            DECID => self.drop_held(State::Text),
            // It ends what is not there.
            ST if left_out => {}
            DCS => self.begin(State::Dcs, raw),
            CSI => self.begin(State::Csi, raw),
            OSC => self.begin(State::Osc, raw),
            APC => self.begin(State::Apc, raw),
            _ => {
                self.out.extend_from_slice(raw);
                // The beginnings of two other strings.
                self.open = matches!(byte, SOS | PM);
            }
        }
    }

    fn begin(&mut self, state: State, raw: &[u8]) {
        (self.state, self.content) = (state, raw.len());
        self.held.extend_from_slice(raw);
    }

    fn ascii(&mut self, byte: u8) {
        match (self.state, byte) {
            // It is answered within a sequence, too.
            (_, ENQ) => {}
            (State::Text, ESC) => self.begin(State::Escape, &[ESC]),
            (State::Text, _) => {
                self.out.push(byte);
                self.open &= !matches!(byte, CAN | SUB);
            }
            (State::Out { tmux }, ESC) => self.state = State::OutEscape { tmux },
            (State::Out { .. }, CAN | SUB) | (State::Out { tmux: false }, BEL) => self.state = State::Text,
            (State::Out { .. }, _) => {}
            (State::OutEscape { .. }, b'\\') => self.state = State::Text,
            (State::OutEscape { tmux: true }, ESC) => self.state = State::Out { tmux: true },
            (State::OutEscape { .. }, _) => {
                self.begin(State::Escape, &[ESC]);
                self.ascii(byte);
            }
            (State::OutCsi, 0x40..=0x7e | CAN | SUB) => self.state = State::Text,
            (State::OutCsi, ESC) => self.begin(State::Escape, &[ESC]),
            (State::OutCsi, _) => {}
            (_, CAN | SUB) => {
                self.end_string();
                self.out.push(byte);
                self.open = false;
            }
            (State::Osc | State::Apc, BEL) => {
                if !self.end_string() {
                    self.out.push(byte);
                    self.open = false;
                }
            }
            (_, ESC) if self.end_string() => self.state = State::OutEscape { tmux: false },
            (_, ESC) => self.begin(State::Escape, &[ESC]),
            (State::Escape, _) => self.escape(byte),
            (State::Csi, _) => self.csi(byte),
            (State::Dcs, _) => self.dcs(byte),
            (State::Osc, _) => self.osc(byte),
            (State::Apc, _) => self.apc(byte),
        }
    }

    fn escape(&mut self, byte: u8) {
        let alone = self.held.len() == self.content;
        self.held.push(byte);
        let begin = |unasked: &mut Self, state| (unasked.state, unasked.content) = (state, unasked.held.len());
        match byte {
            _ if self.held.len() > MAX_CSI => self.keep(true),
            // Controls are obeyed within it.
            0x00..=0x1f | 0x7f => {}
            b'[' if alone => begin(self, State::Csi),
            b']' if alone => begin(self, State::Osc),
            b'P' if alone => begin(self, State::Dcs),
            b'_' if alone => begin(self, State::Apc),
            // DECID.
            b'Z' if alone => self.drop_held(State::Text),
            // rxvt's question about its graphics is ESC G Q.
            b'G' if alone => {}
            b'Q' if self.held.ends_with(b"\x1bGQ") => self.drop_held(State::Text),
            0x20..=0x2f => {}
            b'c' if alone => {
                self.reporting.clear();
                self.keep(false);
            }
            // Two other strings.
            _ => self.keep(alone && matches!(byte, b'X' | b'^')),
        }
    }

    fn csi(&mut self, byte: u8) {
        self.held.push(byte);
        match byte {
            0x40..=0x7e => {
                self.held = self.sequence();
                if self.held.is_empty() {
                    self.drop_held(State::Text);
                } else {
                    self.keep(false);
                }
            }
            _ if self.held.len() > MAX_CSI => self.drop_held(State::OutCsi),
            _ => {}
        }
    }

    /// What is left of the control sequence that is held.
    fn sequence(&mut self) -> Vec<u8> {
        let content = &self.held[self.content..];
        let only = |wanted: fn(&u8) -> bool| content.iter().copied().filter(wanted).collect::<Vec<u8>>();
        let (private, between) = (only(|byte| (0x3c..0x40).contains(byte)), only(|byte| (0x20..0x30).contains(byte)));
        let parameters = only(|byte| (0x30..0x3c).contains(byte));
        let first = number(&parameters);
        let last = content.last().copied().unwrap_or_default();
        let asks = match (private.first(), between.last(), last) {
            // Device attributes; status and position; terminal parameters.
            (None | Some(b'>' | b'='), None, b'c') | (None | Some(b'?'), None, b'n') | (None, None, b'x') => true,
            // Modes; the state of presentation, and of the terminal.
            (_, Some(b'$'), b'p' | b'w' | b'u') | (_, Some(b'&' | b'+'), b'u' | b'x') => true,
            // Checksums; the displayed extent; the locator.
            (_, Some(b'*'), b'y') | (_, Some(b'"'), b'v') | (_, Some(b'\''), b'z' | b'{' | b'|' | b'w') => true,
            // Colors, graphic rendition, title position.
            (_, Some(b'#'), b'R' | b'|' | b'S') => true,
            // kitty's keyboard and xterm's keys and graphics; xterm's version; kitty's cursors.
            (Some(b'?'), None, b'u' | b'm' | b'g' | b'S') | (Some(b'>'), None, b'q') => true,
            (Some(b'>'), Some(b' '), b'q') => matches!(first, b"" | b"100" | b"101"),
            // The window.
            (None, None, b't') => {
                matches!(first, b"11" | b"13" | b"14" | b"15" | b"16" | b"18" | b"19" | b"20" | b"21")
            }
            (Some(b'?'), None, b'h' | b'l') => return self.modes(&parameters, last),
            _ => false,
        };
        if asks { Vec::new() } else { self.held.clone() }
    }

    /// Notes which modes of reporting are on. That one is off, the terminal may be told.
    fn modes(&mut self, parameters: &[u8], last: u8) -> Vec<u8> {
        let all = parameters.split(|byte| *byte == b';');
        let value = |mode: &[u8]| mode.iter().copied().skip_while(|byte| *byte == b'0').collect::<Vec<u8>>();
        let (reporting, others): (Vec<&[u8]>, Vec<&[u8]>) =
            all.partition(|mode| REPORTING.contains(&value(mode).as_slice()));
        for mode in &reporting {
            if last == b'l' {
                self.reporting.remove(&value(mode));
            } else if value(mode) != b"38" {
                self.reporting.insert(value(mode));
            }
        }
        match (last, reporting.is_empty(), others.is_empty()) {
            (b'l', ..) | (_, true, _) => self.held.clone(),
            (_, false, true) => Vec::new(),
            (_, false, false) => [b"\x1b[?", &others.join(&b';')[..], &[last]].concat(),
        }
    }

    fn dcs(&mut self, byte: u8) {
        self.held.push(byte);
        let content = &self.held[self.content..];
        match (byte, content) {
            // A status, a capability, a resource.
            (b'q' | b'Q', [.., b'$' | b'+', _]) => self.drop_held(State::Out { tmux: false }),
            // It goes to the terminal around tmux.
            (b't', b"t") => self.drop_held(State::Out { tmux: true }),
            (0x40..=0x7e, _) => self.keep(true),
            _ if self.held.len() > MAX_CSI => self.drop_held(State::Out { tmux: false }),
            _ => {}
        }
    }

    fn osc(&mut self, byte: u8) {
        self.hold(byte);
        let content = self.held.get(self.content..).unwrap_or_default();
        let digits = content.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, begun) = (number(content), content.len() > digits);
        if digits > MAX_DIGITS {
            self.drop_held(State::Out { tmux: false });
        } else if begun && (FREE.contains(&number) || digits == 0) {
            // The Linux console has some that have no number, and no end.
            self.keep(true);
        } else if begun && number == b"52" {
            // A selection; what is to be put there is never a question mark.
            match content.splitn(3, |byte| *byte == b';').nth(2) {
                Some([b'?']) => self.drop_held(State::Out { tmux: false }),
                Some([_]) => self.keep(true),
                // No name of a selection is so long.
                Some(_) | None if content.len() > MAX_CSI => self.drop_held(State::Out { tmux: false }),
                Some(_) | None => {}
            }
        } else if begun && number == b"1337" && content.len() > 32 && !asks(content) {
            self.keep(true);
        }
    }

    fn apc(&mut self, byte: u8) {
        self.hold(byte);
        match self.held.get(self.content..) {
            Some([b'G', .., b';'] | [b'G']) if byte == b'G' => {}
            Some([b'G', .., b';']) if is_answered(&self.held[self.content..]) => {
                self.drop_held(State::Out { tmux: false });
            }
            Some([b'G', .., b';']) => self.keep(true),
            Some([b'G', ..]) | None => {}
            Some(_) => self.keep(true),
        }
    }

    fn hold(&mut self, byte: u8) {
        if self.held.len() < MAX_HELD {
            self.held.push(byte);
        } else {
            self.drop_held(State::Out { tmux: false });
        }
    }

    /// Decides about what is held, at its end; `true` if it is left out.
    fn end_string(&mut self) -> bool {
        let content = self.held.get(self.content..).unwrap_or_default();
        let left_out = match self.state {
            State::Osc => asks(content),
            State::Apc => content.first() == Some(&b'G') && is_answered(content),
            State::Text | State::Escape | State::Csi | State::Dcs => false,
            State::Out { .. } | State::OutEscape { .. } | State::OutCsi => true,
        };
        if left_out {
            self.drop_held(State::Text);
        } else if self.state != State::Text {
            self.keep(true);
        }
        left_out
    }

    /// What is held is no question.
    fn keep(&mut self, open: bool) {
        self.out.append(&mut self.held);
        (self.state, self.open) = (State::Text, open);
    }

    fn drop_held(&mut self, state: State) {
        self.held.clear();
        self.state = state;
        if std::mem::take(&mut self.open) {
            self.out.push(CAN);
        }
    }
}

/// Whether an operating system command is a question: a field of it begins with a question mark.
fn asks(content: &[u8]) -> bool {
    let (number, text) = (number(content), content.splitn(2, |byte| *byte == b';').nth(1).unwrap_or_default());
    if ANSWERED.contains(&number) {
        return true;
    }
    if number == b"1337" {
        return ITERM.iter().any(|begin| text.starts_with(begin));
    }
    let field = |field: &[u8]| field.first() == Some(&b'?');
    !FREE.contains(&number) && text.split(|byte| matches!(byte, b';' | b'=')).any(field)
}

/// The number that it begins with, without zeros before it.
fn number(content: &[u8]) -> &[u8] {
    let digits = content.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
    let zeros = digits.iter().take_while(|byte| **byte == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

/// Whether a graphics command of kitty is answered: all are but those that say to be quiet.
fn is_answered(content: &[u8]) -> bool {
    let keys = content[1..].split(|byte| *byte == b';').next().unwrap_or_default();
    !keys.split(|byte| *byte == b',').any(|key| key == b"q=2")
}

#[cfg(test)]
#[path = "unasked_tests.rs"]
mod tests;
