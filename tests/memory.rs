//! Memory of this process: in its own binary, because tests in the same process would take memory too.
#![cfg(feature = "video")]

use std::fs;
use std::time::Duration;

use sphereface::media::{Input, Source, SourceOptions};

/// Memory of this process in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_slow_consumer_does_not_fill_the_memory() {
    // 300 frames of 1.4 MB: all of them would be 415 MB.
    let input =
        "gst:videotestsrc num-buffers=300 pattern=black ! video/x-raw,format=I420,width=1280,height=720";
    let mut source = Source::open(&Input::parse(input).unwrap(), &SourceOptions::default()).unwrap();
    let before = resident();
    let (mut count, mut most) = (0, 0);
    while source.next_frame().unwrap().is_some() {
        std::thread::sleep(Duration::from_millis(5));
        count += 1;
        most = most.max(resident());
    }
    assert_eq!(count, 300);
    let grown = most.saturating_sub(before) / 1_000_000;
    assert!(grown < 250, "{grown} MB more");
}
