//! The XML of Final Cut Pro 7 (xmeml, version 4), which Premiere Pro and DaVinci Resolve read.

use std::fmt::Write as _;

use super::{Mark, Timeline};
use crate::file::escaped;

pub(super) fn text(timeline: &Timeline<'_>) -> String {
    let Timeline { video, media, numbering, start, length, .. } = timeline;
    let (title, name) = (escaped(timeline.title()), escaped(&video.name));
    let rate = format!(
        "<rate><timebase>{}</timebase><ntsc>{}</ntsc></rate>",
        numbering.rate.base(),
        if numbering.rate.is_ntsc() { "TRUE" } else { "FALSE" }
    );
    let timecode = format!(
        "<timecode>{rate}<string>{}</string><frame>{start}</frame><displayformat>{}</displayformat></timecode>",
        timeline.timecode(0),
        if numbering.drop { "DF" } else { "NDF" }
    );
    let picture = format!(
        "<samplecharacteristics>{rate}<width>{}</width><height>{}</height></samplecharacteristics>",
        video.width, video.height
    );
    // The programs that read this write local files with a host.
    let media = escaped(&media.replacen("file:///", "file://localhost/", 1));
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE xmeml>\n\
         <xmeml version=\"4\">\n \
         <sequence id=\"sequence-1\">\n  \
         <name>{title}</name>\n  <duration>{length}</duration>\n  {rate}\n  {timecode}\n"
    );
    for Mark { name, first, length, .. } in &timeline.marks {
        let (name, to) = (escaped(name), first + length);
        let _ = writeln!(
            text,
            "  <marker><name>{name}</name><comment></comment><in>{first}</in><out>{to}</out></marker>"
        );
    }
    let _ = write!(
        text,
        "  <media>\n   <video>\n    <format>{picture}</format>\n    <track>\n     \
         <clipitem id=\"clipitem-1\">\n      <name>{name}</name>\n      <duration>{length}</duration>\n      {rate}\n      \
         <start>0</start>\n      <end>{length}</end>\n      <in>0</in>\n      <out>{length}</out>\n      \
         <file id=\"file-1\">\n       <name>{name}</name>\n       <pathurl>{media}</pathurl>\n       {rate}\n       \
         <duration>{length}</duration>\n       {timecode}\n       <media><video>{picture}</video></media>\n      </file>\n     \
         </clipitem>\n    </track>\n   </video>\n  </media>\n </sequence>\n</xmeml>\n"
    );
    text
}
