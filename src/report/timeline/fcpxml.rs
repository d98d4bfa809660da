//! Final Cut Pro's XML, version 1.9: the video in a project, with keywords over ranges and markers.

use std::fmt::Write as _;

use super::{Mark, Timeline};
use crate::file::escaped;

pub(super) fn text(timeline: &Timeline<'_>) -> String {
    let Timeline { video, media, numbering, start, length, .. } = timeline;
    let time = |frames: i64| {
        let (numerator, denominator) = numbering.rate.seconds(frames);
        match numerator % denominator {
            0 => format!("{}s", numerator / denominator),
            _ => format!("{numerator}/{denominator}s"),
        }
    };
    let (title, name) = (escaped(timeline.title()), escaped(&video.name));
    let (frame, from, duration) = (time(1), time(*start), time(*length));
    let mode = if numbering.drop { "DF" } else { "NDF" };
    let (width, height, media) = (video.width, video.height, escaped(media));
    let sound = if video.sound == Some(true) { " hasAudio=\"1\"" } else { "" };
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE fcpxml>\n\
         <fcpxml version=\"1.9\">\n \
         <resources>\n  \
         <format id=\"r1\" frameDuration=\"{frame}\" width=\"{width}\" height=\"{height}\"/>\n  \
         <asset id=\"r2\" name=\"{name}\" start=\"{from}\" duration=\"{duration}\" hasVideo=\"1\" format=\"r1\"{sound}>\n   \
         <media-rep kind=\"original-media\" src=\"{media}\"/>\n  \
         </asset>\n \
         </resources>\n \
         <library>\n  \
         <event name=\"sphereface\">\n   \
         <project name=\"{title}\">\n    \
         <sequence format=\"r1\" duration=\"{duration}\" tcStart=\"{from}\" tcFormat=\"{mode}\">\n     \
         <spine>\n      \
         <asset-clip ref=\"r2\" name=\"{name}\" offset=\"{from}\" start=\"{from}\" duration=\"{duration}\" tcFormat=\"{mode}\">\n"
    );
    for Mark { name, first, length, .. } in &timeline.marks {
        let (name, from, duration) = (escaped(name), time(start + first), time(*length));
        let _ = writeln!(
            text,
            "       <marker start=\"{from}\" duration=\"{frame}\" value=\"{name}\"/>\n       \
             <keyword start=\"{from}\" duration=\"{duration}\" value=\"{name}\"/>"
        );
    }
    text += "      </asset-clip>\n     </spine>\n    </sequence>\n   </project>\n  </event>\n </library>\n</fcpxml>\n";
    text
}
