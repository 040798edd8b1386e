//! Logs on disk: what goes in comes out, also while it grows.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
};

use proptest::prelude::*;
use switchover::exec::log::{LINE, LogReader, LogWriter};

fn written(parts: &[&[u8]], limit: u64) -> (tempfile::TempDir, PathBuf, u64, bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut writer = LogWriter::new(File::create(&path).unwrap(), limit);
    for (n, part) in parts.iter().enumerate() {
        writer.feed(part, n as u64 * 10).unwrap();
    }
    writer.finish(999).unwrap();
    let (printed, truncated) = (writer.printed(), writer.truncated());
    (dir, path, printed, truncated)
}

fn texts(path: &std::path::Path) -> Vec<String> {
    let mut reader = LogReader::open(path).unwrap();
    reader.lines(0, usize::MAX).unwrap().into_iter().map(|l| l.text).collect()
}

#[test]
fn lines_carry_the_time_at_which_they_ended() {
    let (_dir, path, printed, truncated) = written(&[b"one\ntw", b"o\n\n\x1b[31mred\x1b[0m", b"\tx\nlast"], 1000);
    assert_eq!(fs::read_to_string(&path).unwrap(), "0\tone\n10\ttwo\n10\t\n20\t\u{1b}[31mred\u{1b}[0m\tx\n999\tlast\n");
    assert_eq!((printed, truncated), (28, false));
    let mut reader = LogReader::open(&path).unwrap();
    let last = reader.tail(1).unwrap().pop().unwrap();
    assert_eq!((last.n, last.ms, last.text.as_str()), (4, 999, "last"));
    assert_eq!(reader.lines(4, 9).unwrap().len(), 1);
    assert!(reader.lines(5, 9).unwrap().is_empty());
    assert_eq!(LogReader::open(&path.with_extension("none")).unwrap().tail(9).unwrap(), []);
}

#[test]
fn hostile_bytes_become_text() {
    let cases: &[(&[u8], &[&str])] = &[
        (b"a\0b\x07c\n", &["a\u{FFFD}b\u{FFFD}c"]),
        (b"\xff\xfe\n", &["\u{FFFD}\u{FFFD}"]),
        (b"crlf\r\n", &["crlf"]),
        (b"10%\r50%\r100%\n", &["100%"]),
        (b"10%\r50%\r\n", &["50%"]),
        (b"\r\r\n", &[""]),
        ("ünï 猫\u{85}\n".as_bytes(), &["ünï 猫\u{FFFD}"]),
        (b"\n\n", &["", ""]),
        (b"", &[]),
    ];
    for (bytes, expected) in cases {
        let (_dir, path, ..) = written(&[bytes], 1000);
        assert_eq!(texts(&path), *expected, "{bytes:?}");
    }
    // A file that is no log of ours is shown as far as that goes.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fs::write(&path, [&b"no time\nx\ty\n"[..], &vec![b'z'; 3 * LINE], b"\n99999999999999999999999999\tq\n"].concat())
        .unwrap();
    let shown = texts(&path);
    assert_eq!(shown.len(), 4);
    assert_eq!(&shown[..2], ["no time", "x\ty"]);
    assert!(shown[2].len() < 2 * LINE);
}

#[test]
fn long_lines_are_split_and_the_limit_is_told_once() {
    let long = vec![b'x'; LINE * 2 + 5];
    let (_dir, path, ..) = written(&[&long, b"y\n"], 1_000_000);
    assert_eq!(texts(&path).iter().map(String::len).collect::<Vec<_>>(), [LINE, LINE, 6]);
    let exact = [vec![b'x'; LINE], b"\n".to_vec()].concat();
    let (_dir, path, ..) = written(&[&exact], 1_000_000);
    assert_eq!(texts(&path).iter().map(String::len).collect::<Vec<_>>(), [LINE]);

    let line = b"0123456789\n".repeat(10);
    let (_dir, path, printed, truncated) = written(&[&line, &line, b"more"], 33);
    assert_eq!((printed, truncated), (224, true));
    let told = "[switchover] the output limit of 33 bytes is reached; the rest is not kept";
    assert_eq!(texts(&path), ["0123456789", "0123456789", "0123456789", told]);
}

#[test]
fn a_full_disk_loses_output_and_says_so() {
    let mut writer = LogWriter::new(File::options().write(true).open("/dev/full").unwrap(), 1000);
    assert!(writer.feed(b"one\ntwo\n", 1).is_err());
    assert_eq!((writer.printed(), writer.truncated()), (8, true));
}

#[test]
fn a_large_log_is_read_by_pages() {
    let all: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let (_dir, path, ..) = written(&[all.as_bytes()], u64::MAX);
    let mut reader = LogReader::open(&path).unwrap();
    assert_eq!(reader.total(), 200_000);
    for from in [0, 1, 511, 512, 513, 99_999, 199_999] {
        let page = reader.lines(from, 3).unwrap();
        assert_eq!((page[0].n, &page[0].text), (from, &format!("line {from}")));
        assert_eq!(page.len(), 3.min(200_000 - from));
    }
}

#[tokio::test]
async fn a_growing_log_is_followed_and_half_lines_wait() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let mut reader = LogReader::open(&path).unwrap();
    let (go, mut wait) = tokio::sync::mpsc::channel::<()>(1);
    let file = path.clone();
    let writer = tokio::spawn(async move {
        let mut file = File::create(file).unwrap();
        for n in 0..3 {
            file.write_all(format!("{n}\thalf").as_bytes()).unwrap();
            file.write_all(b" whole\n").unwrap();
            wait.recv().await;
        }
        file.write_all(b"9\tnever ended").unwrap();
    });
    let mut seen = 0;
    while seen < 3 {
        tokio::time::timeout(std::time::Duration::from_secs(15), reader.changed()).await.unwrap().unwrap();
        for line in reader.lines(seen, 99).unwrap() {
            assert_eq!((line.n, line.text.as_str()), (seen, "half whole"));
            seen += 1;
            go.send(()).await.unwrap();
        }
    }
    writer.await.unwrap();
    assert_eq!(reader.tail(9).unwrap().len(), 3);
}

proptest! {
    /// However the output is cut into pieces, the lines are the same, and reading any file is no crash.
    #[test]
    fn pieces_do_not_matter(text in "[a-z\n]{0,300}", cuts in prop::collection::vec(1_usize..40, 1..20)) {
        let mut parts = Vec::new();
        let (mut rest, mut n) = (text.as_bytes(), 0);
        while !rest.is_empty() {
            let (part, more) = rest.split_at(cuts[n % cuts.len()].min(rest.len()));
            parts.push(part);
            rest = more;
            n += 1;
        }
        let (_dir, path, printed, _) = written(&parts, u64::MAX);
        prop_assert_eq!(printed, text.len() as u64);
        let lines: Vec<&str> = text.lines().collect();
        prop_assert_eq!(texts(&path), lines);
    }

    #[test]
    fn any_file_is_read(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'\t')], 0..400)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, &bytes).unwrap();
        prop_assert_eq!(texts(&path).len(), bytes.iter().filter(|b| **b == b'\n').count());
    }
}
