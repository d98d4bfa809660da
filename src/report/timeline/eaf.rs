//! ELAN's annotations: one tier per person. Times are milliseconds of the video.

use std::fmt::Write as _;

use crate::file::escaped;
use crate::report::Appearance;

/// Begin and end of an annotation in milliseconds; no annotation is empty.
fn times_ms(start_ns: u64, end_ns: u64) -> [u64; 2] {
    let start = start_ns / 1_000_000;
    [start, end_ns.div_ceil(1_000_000).max(start + 1)]
}

pub(super) fn text(media: &str, people: &[Appearance]) -> String {
    let kind = match media.rsplit('.').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "mp4" | "m4v" => "video/mp4",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        "mkv" => "video/x-matroska",
        _ => "unknown",
    };
    let media = escaped(media);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ANNOTATION_DOCUMENT AUTHOR=\"\" DATE=\"1970-01-01T00:00:00+00:00\" FORMAT=\"3.0\" VERSION=\"3.0\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:noNamespaceSchemaLocation=\"http://www.mpi.nl/tools/elan/EAFv3.0.xsd\">\n \
         <HEADER MEDIA_FILE=\"\" TIME_UNITS=\"milliseconds\">\n  \
         <MEDIA_DESCRIPTOR MEDIA_URL=\"{media}\" MIME_TYPE=\"{kind}\"/>\n \
         </HEADER>\n <TIME_ORDER>\n"
    );
    let named = || people.iter().filter_map(|person| Some((person.who.name()?, &person.spans)));
    // Slots in the order of time, as ELAN writes them. Every annotation has its own slots, since annotations
    // that share one are moved together.
    let spans = named().flat_map(|(_, spans)| spans);
    let mut slots: Vec<(u64, usize)> = spans
        .flat_map(|span| times_ms(span.start_ns, span.end_ns))
        .enumerate()
        .map(|(at, ms)| (ms, at))
        .collect();
    slots.sort_unstable();
    let mut numbers = vec![0; slots.len()];
    for (number, (ms, at)) in (1..).zip(&slots) {
        numbers[*at] = number;
        let _ = writeln!(text, "  <TIME_SLOT TIME_SLOT_ID=\"ts{number}\" TIME_VALUE=\"{ms}\"/>");
    }
    text += " </TIME_ORDER>\n";
    let mut annotation = 0;
    for (name, spans) in named() {
        let name = escaped(name);
        let _ = writeln!(text, " <TIER LINGUISTIC_TYPE_REF=\"person\" TIER_ID=\"{name}\">");
        for _ in spans {
            let [from, to] = [numbers[2 * annotation], numbers[2 * annotation + 1]];
            annotation += 1;
            let _ = writeln!(
                text,
                "  <ANNOTATION>\n   <ALIGNABLE_ANNOTATION ANNOTATION_ID=\"a{annotation}\" \
                 TIME_SLOT_REF1=\"ts{from}\" TIME_SLOT_REF2=\"ts{to}\">\n    \
                 <ANNOTATION_VALUE>{name}</ANNOTATION_VALUE>\n   </ALIGNABLE_ANNOTATION>\n  </ANNOTATION>"
            );
        }
        text += " </TIER>\n";
    }
    text += " <LINGUISTIC_TYPE GRAPHIC_REFERENCES=\"false\" LINGUISTIC_TYPE_ID=\"person\" TIME_ALIGNABLE=\"true\"/>\n\
             </ANNOTATION_DOCUMENT>\n";
    text
}
