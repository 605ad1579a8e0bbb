use proptest::prelude::*;

use super::*;

/// Passed in pieces of so many bytes, and whatever is held back in the end.
fn passed(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>) {
    let mut unasked = Unasked::default();
    let passed = bytes.chunks(piece).flat_map(|piece| unasked.pass(piece)).collect();
    (passed, unasked.end())
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// What is left of it in output that goes on.
#[track_caller]
fn leaves(bytes: &[u8], left: &[u8]) {
    for (before, after) in [(&b""[..], &b""[..]), (b"text \xc3\xa4 ", b"more"), (b"\x1b[1m", b"\x1b[0m\r\n")] {
        let (whole, expected) = ([before, bytes, after].concat(), [before, left, after].concat());
        for piece in [1, 2, 3, 7, 1000] {
            let (passed, held) = passed(&whole, piece);
            assert_eq!(shown(&[passed, held].concat()), shown(&expected), "{} by {piece}", shown(&whole));
        }
    }
}

#[test]
fn a_question_is_left_out_however_it_is_put() {
    for question in [
        &b"\x1b[6n"[..],
        b"\x1b[5n",
        b"\x1b[?6n",
        b"\x1b[?15n",
        b"\x1b[?996n",
        b"\x1b[06n",
        b"\x05",
        b"\x1bZ",
        b"\x9a",
        b"\xc2\x9a",
        b"\x9b6n",
        b"\xc2\x9b6n",
        b"\x1b[c",
        b"\x1b[0c",
        b"\x1b[>c",
        b"\x1b[>0c",
        b"\x1b[=c",
        b"\x1b[x",
        b"\x1b[1x",
        b"\x1b[?2026$p",
        b"\x1b[4$p",
        b"\x1b[1$w",
        b"\x1b[1$u",
        b"\x1b[&u",
        b"\x1b[1;1;1;1;10;10*y",
        b"\x1b[\"v",
        b"\x1b['|",
        b"\x1b[1;2'z",
        b"\x1b[?u",
        b"\x1b[?4m",
        b"\x1b[?1;1;0S",
        b"\x1b[>q",
        b"\x1b[>0q",
        b"\x1b[> q",
        b"\x1b[14t",
        b"\x1b[14;2t",
        b"\x1b[18t",
        b"\x1b[21t",
        b"\x1b[1#R",
        b"\x1b]10;?\x07",
        b"\x1b]0010;?\x07",
        b"\x1b]000000000011;?\x07",
        b"\x1b]052;c;?\x07",
        b"\x1b]060\x07",
        b"\x1b[014t",
        b"\x1b]11;?\x1b\\",
        b"\x1b]11;?\x9c",
        b"\x9d11;?\xc2\x9c",
        b"\x1b]4;1;rgb:0/0/0;2;?\x07",
        b"\x1b]4;255;?\x1b\\",
        b"\x1b]21;foreground=?;cursor=?\x1b\\",
        b"\x1b]22;?__current__\x1b\\",
        b"\x1b]50;?\x07",
        b"\x1b]52;c;?\x07",
        b"\x1b]52;;?\x1b\\",
        b"\x1b]60\x1b\\",
        b"\x1b]61;x\x07",
        b"\x1b]99;i=1:p=?;\x1b\\",
        b"\x1b]701;?\x07",
        b"\x1b]5522;type=read;\x1b\\",
        b"\x1b]1337;ReportCellSize\x07",
        b"\x1b]1337;RequestUpload=format=tgz\x07",
        b"\x1bP$qm\x1b\\",
        b"\x1bP+q544e\x1b\\",
        b"\x1bP+Q6675\x1b\\",
        b"\x90$q\"p\x9c",
        b"\x1bPtmux;\x1b\x1b[6n\x1b\x1b]11;?\x07\x1b\\",
        b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\",
        b"\x1b_Ga=T,i=1;AAAA\x1b\\",
        b"\x1b_Ga=q\x1b\\",
        b"\x1bGQ",
        // Left out, because none is so long.
        &[b"\x1b[", &b"0;".repeat(1000)[..], b"6n"].concat(),
    ] {
        leaves(question, b"");
    }
}

#[test]
fn a_question_within_another_sequence_is_found() {
    for (bytes, left) in [
        (&b"\x1b[\x056n"[..], &b""[..]),
        (b"\x1b[6\x05n", b""),
        (b"\x1b[3\x1b[6n", b"\x1b[3\x18"),
        (b"\x1b\x1b[6n[6n", b"\x1b\x18[6n"),
        (b"\x1b]0;title\x1b[6n", b"\x1b]0;title\x18"),
        (b"\x1bP1$r0m\x1b[6n", b"\x1bP1$r0m\x18"),
        (b"\x1b]11;?\x1b[6n", b""),
        (b"\x1b]11;?\x18[6n", b"\x18[6n"),
        (b"\x1b]11;?\x9b6n", b""),
        (b"\x1b_Ga=q\x9b6nx", b"x"),
        (b"\x1b]0;a\x05b\x07", b"\x1b]0;ab\x07"),
    ] {
        leaves(bytes, left);
    }
}

#[test]
fn everything_else_is_as_it_was() {
    for kept in [
        &b"plain\r\n\ttext\x07\x08\x0b\x0c\x0e\x0f\x7f\0"[..],
        "äöü 漢字 🦀 \u{6db}\u{9db}\u{1f6db} \u{a0}\u{85}".as_bytes(),
        // Of other encodings.
        b"\xe4\xf6\xfc \xff\xfe \xc3 \xe2\x82 \x80\x99",
        b"\x1b[1;31mred\x1b[0m\x1b[38;2;1;2;3m\x1b[4:3m",
        b"\x1b[2J\x1b[H\x1b[10;20H\x1b[K\x1b[?25l\x1b[?25h\x1b[?1049h\x1b[?2004h\x1b[?7;25l",
        b"\x1b[!p\x1b[61\"p\x1b[0 q\x1b[2 q\x1b[?6c\x1b[>4;2m\x1b[>4n\x1b[>1u\x1b[<u\x1b[=1;1u\x1b[u\x1b[s\x1b[?2026h",
        b"\x1b[22;0t\x1b[23;0t\x1b[8;24;80t\x1b[>2t\x1b[1;1;2;2$x\x1b[2*x\x1b[3S\x1b[2g\x1b[1;5r\x1b[5w\x1b[2 p",
        b"\x1b7\x1b8\x1b(B\x1b)0\x1b=\x1b>\x1b#8\x1b%G\x1bM\x1bD\x1bE\x1bH\x1bG\x1b \x46\x1bk screen \x1b\\\x1b\\",
        b"\x1b]0;who? a;? b=?\x07\x1b]2;?\x1b\\\x1b]7;file:///x?\x07\x1b]8;;https://x.y/?a=?&b;?\x1b\\link\x1b]8;;\x1b\\",
        b"\x1b]4;1;rgb:ff/00/00\x07\x1b]10;#fff\x07\x1b]104\x07\x1b]52;c;aGk=\x07\x1b]52;c;\x07\x1b]133;A\x07",
        b"\x1b]1337;File=inline=1;size=3:AAAA?\x07\x1b]1337;SetMark\x07\x1b]P1ff0000 and text \x1b]R",
        b"\x1bPq#0;2;0;0;0~~@@-\x1b\\\x1bP1$r0m\x1b\\\x1bP0;1|17/ff\x1b\\\x1b_Ga=T,q=2,i=1;AAAA\x1b\\\x1b_other\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\",
        b"\x1b[\r6\n;1H\x1b[3\x18\x1b[4\x1a",
    ] {
        leaves(kept, kept);
    }
}

#[test]
fn a_terminal_reports_by_itself_only_from_where_it_is_asked() {
    for (bytes, left, then) in [
        (&b"\x1b[?1000h\x1b[?1006h"[..], &b""[..], &b"\x1b[?1006h\x1b[?1000h"[..]),
        (b"\x1b[?1000;25;1004h", b"\x1b[?25h", b"\x1b[?1004h\x1b[?1000h"),
        (b"\x1b[?1003h\x1b[?1003l", b"\x1b[?1003l", b""),
        (b"\x1b[?01003h\x1bc", b"\x1bc", b""),
        (b"\x1b[?2048h", b"", b"\x1b[?2048h"),
        (b"\x1b[?38h", b"", b""),
        (b"\x1b[?1049h\x1b[?1002", b"\x1b[?1049h", b"\x1b[?1002"),
    ] {
        for piece in [1, 3, 1000] {
            let (passed, end) = passed(bytes, piece);
            assert_eq!((shown(&passed), shown(&end)), (shown(left), shown(then)), "{}", shown(bytes));
        }
    }
}

#[test]
fn what_is_held_back_has_a_bound() {
    for begin in [&b"\x1b]4;"[..], b"\x1b]1337;Report", b"\x1b_G", b"\x1b[", b"\x1bP", b"\x1b(", b"\x1b]52;c", b"\x1b]"]
    {
        let mut unasked = Unasked::default();
        unasked.pass(begin);
        for _ in 0..3 * MAX_HELD {
            unasked.pass(b"1");
            assert!(unasked.held.len() <= MAX_HELD, "{}", shown(begin));
        }
        unasked.pass(b"\x1b");
        for _ in 0..3 * MAX_CSI {
            unasked.pass(b"\r(");
        }
        assert!(unasked.held.len() <= MAX_HELD, "{}", shown(begin));
        unasked.pass(b"\x07\x1b\\");
        assert_eq!(unasked.pass(b"again"), b"again", "{}", shown(begin));
    }
}

/// Pieces of what terminals are sent, and of what they are asked.
fn output() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: [&[u8]; 32] = [
        b"\x1b",
        b"[",
        b"]",
        b"P",
        b"_",
        b"G",
        b"\x05",
        b"6",
        b"n",
        b"c",
        b"?",
        b";",
        b"$",
        b"q",
        b"p",
        b"t",
        b"52",
        b"11",
        b"4",
        b"1337;",
        b"\x07",
        b"\\",
        b"\x9b",
        b"\xc2",
        b"\x9c",
        b"\xe2\x82\xac",
        b"\xff",
        b"tmux;",
        b"\x18",
        b"h",
        b"1003",
        b"text",
    ];
    let part =
        prop_oneof![prop::sample::select(&PARTS[..]).prop_map(<[u8]>::to_vec), any::<u8>().prop_map(|byte| vec![byte])];
    prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn how_output_is_cut_makes_no_difference(bytes in output(), cuts in prop::collection::vec(1_usize..6, 1..40)) {
        let mut unasked = Unasked::default();
        let (mut rest, mut cuts, mut all) = (&bytes[..], cuts.iter().cycle(), Vec::new());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap_or(&1)));
            all.extend(unasked.pass(now));
            rest = later;
        }
        prop_assert_eq!((all, unasked.end()), passed(&bytes, usize::MAX));
    }

    #[test]
    fn what_was_let_through_is_let_through_again(bytes in output()) {
        let (once, _) = passed(&bytes, usize::MAX);
        let (twice, held) = passed(&once, usize::MAX);
        prop_assert_eq!(shown(&[twice, held].concat()), shown(&once));
    }

    #[test]
    fn text_and_colours_are_let_through(text in "[ -~äöü漢\r\n\t]{0,40}", colour in 0_u8..108) {
        let whole = format!("{text}\x1b[{colour}m{text}\x1b[0m");
        let (passed, held) = passed(whole.as_bytes(), 5);
        prop_assert_eq!(shown(&[passed, held].concat()), shown(whole.as_bytes()));
    }
}
