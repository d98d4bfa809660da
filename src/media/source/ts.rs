//! A demultiplexer of MPEG transport streams (ISO/IEC 13818-1).
//!
//! GStreamer's own demuxer gives no times before the first clock reference, so sound that starts before the
//! picture is lost, and it hangs when the list of streams changes. Here every packet keeps its own time
//! stamp, and a change is reported as [`Found::Streams`].

use std::collections::HashMap;

use super::latm::Latm;

/// Ticks of the clock of a transport stream per second.
const TICKS_PER_S: i64 = 90_000;
/// Time stamps have 33 bits.
const WRAP: i64 = 1 << 33;
/// A packet whose time is further back than this in its own stream begins a new part.
const LARGEST_STEP_BACK: i64 = TICKS_PER_S / 2;
/// A packet that is further ahead than this of everything else begins a new part.
const LARGEST_STEP_AHEAD: i64 = 10 * TICKS_PER_S;
/// The longest access unit that is collected: no real picture is larger.
const LARGEST_UNIT: usize = 64 << 20;
/// The first byte of every packet.
const SYNC: u8 = 0x47;
/// The number of consecutive packets that must begin with it for bytes to be a transport stream.
const CERTAIN: usize = 5;
/// Identifier of null packets.
const FILLING: u16 = 0x1fff;
/// Identifiers of the tables at the beginning: the list of programs and that of their names.
const TABLES: [u16; 2] = [0x00, 0x11];

/// A stream of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    /// Its packet identifier.
    pub(super) pid: u16,
    /// GStreamer caps of its content.
    pub(super) caps: &'static str,
    /// The wrapping of its packets.
    pub(super) wrapping: Wrapping,
    /// ISO 639 code, where the list of streams has one.
    pub(super) language: Option<String>,
}

/// The wrapping of the packets of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// No wrapping.
    Plain,
    /// A control header before each Opus packet; with the number of channels.
    Opus(u8),
    /// AAC in LATM.
    Latm,
}

impl Stream {
    /// Whether it holds pictures.
    pub(super) fn is_video(&self) -> bool {
        self.caps.starts_with("video/")
    }

    /// The name of its codec, for people.
    pub(super) fn codec(&self) -> &'static str {
        match self.caps.split(',').next().unwrap_or_default() {
            "video/x-h264" => "H.264",
            "video/x-h265" => "H.265",
            "video/mpeg" => "MPEG video",
            "video/x-wmv" => "VC-1",
            "audio/x-ac3" => "AC-3",
            "audio/x-eac3" => "E-AC-3",
            "audio/x-dts" => "DTS",
            "audio/x-opus" => "Opus",
            _ if self.caps.contains("mpegversion=(int)1") => "MPEG sound",
            _ => "AAC",
        }
    }
}

/// One unit of a stream: a picture, or some sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// The stream.
    pub(super) pid: u16,
    /// Presentation time, in ticks modulo 2^33.
    pub(super) pts: Option<i64>,
    /// Decoding time, likewise.
    pub(super) dts: Option<i64>,
    /// What its duration depends on.
    pub(super) length: Length,
    /// Its bytes.
    pub(super) data: Vec<u8>,
}

/// What the duration of a unit depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// On the distance of pictures.
    Picture,
    /// It is known, in ticks.
    Ticks(i64),
    /// On the number of bytes: sound of a constant bit rate.
    Bytes,
}

/// An item found in a transport stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// The streams of the chosen program, at the beginning and whenever they change.
    Streams(Vec<Stream>),
    /// A unit of one of them.
    Unit(Unit),
    /// What a stream of the chosen program is that is not read.
    Unread(&'static str),
}

/// A unit that is being collected.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    /// Stated length, header included; `None` if the unit lasts until the next begins.
    length: Option<usize>,
    /// Counter and payload of the last packet.
    last: Option<(u8, Vec<u8>)>,
}

/// A demultiplexer of transport streams.
pub(super) struct Demuxer {
    /// Distance of packets in bytes, and offset of the packet within that.
    layout: (usize, usize),
    rest: Vec<u8>,
    /// Identifiers of the lists of streams, as the list of programs has them.
    programs: Vec<u16>,
    /// That of the chosen program.
    chosen: Option<u16>,
    streams: Vec<Stream>,
    sections: HashMap<u16, Vec<u8>>,
    partial: HashMap<u16, Partial>,
    latm: HashMap<u16, Latm>,
    found: Vec<Found>,
    counters: Counters,
}

/// Distance of packets in bytes, and offset of the packet within that; `None` if it is not a transport
/// stream. A recording may begin within a packet, and lack bytes later.
pub(super) fn layout(start: &[u8]) -> Option<(usize, usize)> {
    // It carries a payload or an adaptation field.
    let is_packet =
        |at: usize| start.get(at) == Some(&SYNC) && start.get(at + 3).is_some_and(|flags| flags & 0x30 != 0);
    [(188, 0), (192, 4), (204, 0)].into_iter().find(|&(size, at)| {
        (at..at + size).any(|first| (0..CERTAIN).all(|packet| is_packet(first + packet * size)))
    })
}

/// Counts missing packets by their continuity counters.
#[derive(Debug, Default)]
struct Counters {
    /// The last counter of each stream.
    last: HashMap<u16, u8>,
    lost: u64,
}

impl Counters {
    /// The next packet of a stream, whose counter counts packets with a payload.
    fn count(&mut self, pid: u16, number: u8, carries: bool) {
        if pid == FILLING {
            return;
        }
        if let Some(&before) = self.last.get(&pid) {
            // A packet may be repeated once.
            let repeated = carries && number == before;
            let gap = number.wrapping_sub(before + u8::from(carries)) & 0x0f;
            if (gap > 0 || repeated) && TABLES.contains(&pid) {
                // Where files were joined, every counter restarts, that of the tables first.
                self.last.clear();
            } else if !repeated {
                self.lost += u64::from(gap);
            }
        }
        self.last.insert(pid, number);
    }
}

impl Demuxer {
    /// A demultiplexer for packets of that [`layout`].
    pub(super) fn new(layout: (usize, usize)) -> Self {
        Self {
            layout,
            rest: Vec::new(),
            programs: Vec::new(),
            chosen: None,
            streams: Vec::new(),
            sections: HashMap::new(),
            partial: HashMap::new(),
            latm: HashMap::new(),
            found: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// The items that the next bytes complete.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<Found> {
        let (size, start) = self.layout;
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(packet) = all.get(at + start..at + start + 188).filter(|_| at + size <= all.len()) {
            if packet[0] == SYNC {
                self.packet(packet);
                at += size;
            } else {
                // Bytes were lost: look for the next packet.
                at += 1;
            }
        }
        self.rest = all.split_off(at);
        std::mem::take(&mut self.found)
    }

    /// The items left at the end.
    pub(super) fn finish(&mut self) -> Vec<Found> {
        self.rest.clear();
        self.complete_all();
        std::mem::take(&mut self.found)
    }

    /// The number of missing packets.
    pub(super) fn lost(&self) -> u64 {
        self.counters.lost
    }

    fn packet(&mut self, packet: &[u8]) {
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        let starts = packet[1] & 0x40 != 0;
        let (damaged, scrambled) = (packet[1] & 0x80 != 0, packet[3] & 0xc0 != 0);
        let (adapts, carries) = (packet[3] & 0x20 != 0, packet[3] & 0x10 != 0);
        if !damaged {
            self.counters.count(pid, packet[3] & 0x0f, carries);
        }
        let from = if adapts { 5 + usize::from(packet[4]) } else { 4 };
        let Some(payload) = packet.get(from..).filter(|_| carries && !damaged && !scrambled) else { return };
        if pid == 0 || self.programs.contains(&pid) {
            self.section(pid, payload, starts);
        } else if self.streams.iter().any(|stream| stream.pid == pid) {
            self.piece(pid, payload, starts, packet[3] & 0x0f);
        }
    }

    /// A piece of a table.
    fn section(&mut self, pid: u16, payload: &[u8], starts: bool) {
        let mut bytes = self.sections.remove(&pid).unwrap_or_default();
        let mut new = payload;
        if starts {
            let Some((&pointer, after)) = payload.split_first() else { return };
            let (before, after) = after.split_at(usize::from(pointer).min(after.len()));
            bytes.extend_from_slice(before);
            self.tables(pid, &bytes);
            bytes.clear();
            new = after;
        } else if bytes.is_empty() {
            return;
        }
        bytes.extend_from_slice(new);
        let left = self.tables(pid, &bytes);
        let bytes = bytes.split_off(left);
        if !bytes.is_empty() {
            self.sections.insert(pid, bytes);
        }
    }

    /// Reads whole tables; says how many bytes they took.
    fn tables(&mut self, pid: u16, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + 3) {
            if head[0] == 0xff {
                return bytes.len();
            }
            let length = 3 + (usize::from(head[1] & 0x0f) << 8 | usize::from(head[2]));
            let Some(table) = bytes.get(at..at + length) else { return at };
            at += length;
            let current = table.get(5).is_some_and(|flags| flags & 1 == 1);
            if length < 12 || !current || checksum(table) != 0 {
                continue;
            }
            match table[0] {
                0 if pid == 0 => self.programs(&table[8..length - 4]),
                2 if pid != 0 => self.streams(pid, &table[8..length - 4]),
                _ => {}
            }
        }
        at
    }

    fn programs(&mut self, entries: &[u8]) {
        let entries = entries.chunks_exact(4);
        let programs = entries.filter(|entry| entry[..2] != [0, 0]);
        self.programs = programs.map(|entry| identifier(&entry[2..])).collect();
    }

    fn streams(&mut self, program: u16, table: &[u8]) {
        let gone = self.chosen.is_some_and(|chosen| !self.programs.contains(&chosen));
        if self.chosen.is_some_and(|chosen| chosen != program) && !gone {
            return;
        }
        let Some(mut rest) = table.get(2..4).and_then(|length| table.get(4 + size(length)..)) else { return };
        let (mut streams, mut unread) = (Vec::new(), Vec::new());
        while let Some(head) = rest.get(..5) {
            let Some(descriptors) = rest.get(5..5 + size(&head[3..])) else { break };
            match stream(head[0], identifier(&head[1..]), descriptors) {
                Some(stream) => streams.push(stream),
                None => unread.extend(unread_kind(head[0], descriptors)),
            }
            rest = &rest[5 + descriptors.len()..];
        }
        if self.chosen != Some(program) && !streams.iter().any(Stream::is_video) {
            return;
        }
        if streams != self.streams {
            self.complete_all();
            self.streams.clone_from(&streams);
            self.partial.clear();
            self.latm.clear();
            self.found.push(Found::Streams(streams));
            self.found.extend(unread.into_iter().map(Found::Unread));
        }
        self.chosen = Some(program);
    }

    /// A piece of a unit.
    fn piece(&mut self, pid: u16, payload: &[u8], starts: bool, counter: u8) {
        let partial = self.partial.entry(pid).or_default();
        // The counter alone does not show it: where files were joined, it may begin where it ended.
        let is_same = |(number, before): &(u8, Vec<u8>)| *number == counter && before == payload;
        if partial.last.as_ref().is_some_and(is_same) {
            return;
        }
        partial.last = Some((counter, payload.to_vec()));
        if starts {
            self.complete(pid);
            let Some(partial) = self.partial.get_mut(&pid) else { return };
            if payload.get(..3) != Some(&[0, 0, 1]) {
                return;
            }
            let length =
                payload.get(4..6).map_or(0, |length| usize::from(length[0]) << 8 | usize::from(length[1]));
            partial.length = (length > 0).then_some(6 + length);
            partial.bytes.extend_from_slice(payload);
        } else if !partial.bytes.is_empty() && partial.bytes.len() < LARGEST_UNIT {
            partial.bytes.extend_from_slice(payload);
        }
        let whole =
            self.partial.get(&pid).is_some_and(|p| p.length.is_some_and(|length| p.bytes.len() >= length));
        if whole {
            self.complete(pid);
        }
    }

    fn complete_all(&mut self) {
        let pids: Vec<u16> = self.streams.iter().map(|stream| stream.pid).collect();
        pids.into_iter().for_each(|pid| self.complete(pid));
    }

    /// Completes the unit collected for a stream.
    fn complete(&mut self, pid: u16) {
        let Some(partial) = self.partial.get_mut(&pid) else { return };
        let (mut bytes, length) = (std::mem::take(&mut partial.bytes), partial.length.take());
        bytes.truncate(length.unwrap_or(usize::MAX));
        let Some((pts, dts, start)) = unit_head(&bytes) else { return };
        let data = bytes.split_off(start);
        if data.is_empty() {
            return;
        }
        let stream = self.streams.iter().find(|stream| stream.pid == pid);
        match stream.map(|stream| stream.wrapping) {
            Some(Wrapping::Opus(_)) => {
                // Only the first packet of several has a time.
                let mut pts = pts;
                for data in opus_packets(&data) {
                    self.found.push(Found::Unit(Unit {
                        pid,
                        pts: pts.take(),
                        dts: None,
                        length: Length::Ticks(0),
                        data: data.to_vec(),
                    }));
                }
            }
            Some(Wrapping::Latm) => {
                let data = self.latm.entry(pid).or_default().adts(&data);
                if !data.is_empty() {
                    let length = Length::Ticks(adts_ticks(&data));
                    self.found.push(Found::Unit(Unit { pid, pts, dts, length, data }));
                }
            }
            _ => {
                let length = match stream {
                    Some(stream) if stream.is_video() => Length::Picture,
                    Some(stream) if stream.codec() == "AAC" => Length::Ticks(adts_ticks(&data)),
                    _ => Length::Bytes,
                };
                self.found.push(Found::Unit(Unit { pid, pts, dts, length, data }));
            }
        }
    }
}

/// Times of a unit and the offset of its data.
fn unit_head(bytes: &[u8]) -> Option<(Option<i64>, Option<i64>, usize)> {
    let kind = *bytes.get(3)?;
    // Kinds without the usual header: maps, padding, private data 2, control and directories.
    if matches!(kind, 0xbc | 0xbe | 0xbf | 0xf0..=0xf2 | 0xf8 | 0xff) {
        return None;
    }
    let (flags, length) = (*bytes.get(7)?, usize::from(*bytes.get(8)?));
    let pts = (flags & 0x80 != 0).then(|| stamp(bytes.get(9..14)?)).flatten();
    let dts = (flags & 0xc0 == 0xc0).then(|| stamp(bytes.get(14..19)?)).flatten();
    (bytes.len() >= 9 + length).then_some((pts, dts, 9 + length))
}

/// A time stamp of 33 bits in five bytes.
fn stamp(bytes: &[u8]) -> Option<i64> {
    let [a, b, c, d, e] = *<&[u8; 5]>::try_from(bytes).ok()?;
    let (a, b, c, d, e) = (i64::from(a), i64::from(b), i64::from(c), i64::from(d), i64::from(e));
    Some((a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
}

/// Duration of AAC packets with headers (ISO/IEC 13818-7, 6.2), in ticks.
fn adts_ticks(data: &[u8]) -> i64 {
    const RATES: [i64; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    let (mut samples, mut rate, mut rest) = (0, 0, data);
    while let Some(head) = rest.get(..7).filter(|head| head[0] == 0xff && head[1] & 0xf0 == 0xf0) {
        rate = RATES.get(usize::from(head[2] >> 2 & 0x0f)).copied().unwrap_or(0);
        samples += 1024 * (i64::from(head[6] & 3) + 1);
        let length = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5] >> 5);
        rest = rest.get(length.max(7)..).unwrap_or_default();
    }
    (samples * TICKS_PER_S).checked_div(rate).unwrap_or(0)
}

/// Opus packets without the control headers that transport streams put before each.
fn opus_packets(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let Some(head) = bytes.get(..2).filter(|head| head[0] == 0x7f && head[1] & 0xe0 == 0xe0) {
        let (trims, extends) = (head[1] >> 3 & 3, head[1] & 4 != 0);
        let (mut at, mut size) = (2, 0);
        while let Some(&part) = bytes.get(at) {
            at += 1;
            size += usize::from(part);
            if part != 255 {
                break;
            }
        }
        at += 2 * trims.count_ones() as usize;
        if extends {
            at += 1 + usize::from(bytes.get(at).copied().unwrap_or(0));
        }
        let Some(packet) = bytes.get(at..at + size) else { break };
        packets.push(packet);
        bytes = &bytes[at + size..];
    }
    packets
}

fn identifier(bytes: &[u8]) -> u16 {
    u16::from(bytes[0] & 0x1f) << 8 | u16::from(bytes[1])
}

fn size(bytes: &[u8]) -> usize {
    usize::from(bytes[0] & 0x0f) << 8 | usize::from(bytes[1])
}

/// CRC-32/MPEG-2, which over a whole table is 0.
fn checksum(table: &[u8]) -> u32 {
    table.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte) << 24, |sum, _| {
            sum << 1 ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

/// What a stream is that is not read; `None` for data, teletext and subtitles, and for what is not known at all.
fn unread_kind(kind: u8, descriptors: &[u8]) -> Option<&'static str> {
    let mut tags = Vec::new();
    let mut registered: Option<&[u8]> = None;
    let mut rest = descriptors;
    while let Some((head, body)) = rest.split_first_chunk::<2>() {
        tags.push(head[0]);
        if head[0] == 0x05 {
            registered = body.get(..4);
        }
        rest = body.get(usize::from(head[1])..).unwrap_or_default();
    }
    match (kind, registered) {
        (0x06, Some(b"BSSD")) => Some("sound (SMPTE 302M)"),
        // Teletext, VBI data and subtitles have descriptors of their own.
        (0x06, None) if !tags.iter().any(|tag| matches!(tag, 0x45 | 0x46 | 0x56 | 0x59)) => {
            Some("a stream whose kind is not stated")
        }
        (0x80, _) => Some("uncompressed sound"),
        (0x83, _) => Some("sound (TrueHD)"),
        (0x1c, _) => Some("sound (AAC without a header)"),
        _ => None,
    }
}

/// A stream of a known type.
fn stream(kind: u8, pid: u16, mut descriptors: &[u8]) -> Option<Stream> {
    let (mut language, mut private, mut registered, mut channels) = (None, None, None, 2);
    while let Some(head) = descriptors.get(..2) {
        let Some(body) = descriptors.get(2..2 + usize::from(head[1])) else { break };
        descriptors = &descriptors[2 + body.len()..];
        match head[0] {
            0x05 => registered = body.get(..4).or(registered),
            0x0a => {
                language = body.get(..3).and_then(|code| String::from_utf8(code.to_vec()).ok()).or(language)
            }
            0x6a => private = Some("audio/x-ac3"),
            0x7a => private = Some("audio/x-eac3"),
            0x7b => private = Some("audio/x-dts"),
            // Extension descriptor of Opus, with its channel configuration.
            0x7f if body.first() == Some(&0x80) => {
                channels = body.get(1).copied().filter(|count| (1..=8).contains(count)).unwrap_or(2);
            }
            _ => {}
        }
    }
    let mut wrapping = Wrapping::Plain;
    let caps = match (kind, registered) {
        (0x01, _) => "video/mpeg,mpegversion=(int)1,systemstream=(boolean)false",
        (0x02, _) => "video/mpeg,mpegversion=(int)2,systemstream=(boolean)false",
        (0x10, _) => "video/mpeg,mpegversion=(int)4,systemstream=(boolean)false",
        (0x1b, _) => "video/x-h264,stream-format=(string)byte-stream",
        (0x24, _) | (0x06, Some(b"HEVC")) => "video/x-h265,stream-format=(string)byte-stream",
        (0xea, _) => "video/x-wmv,wmvversion=(int)3,format=(string)WVC1",
        (0x03 | 0x04, _) => "audio/mpeg,mpegversion=(int)1",
        (0x0f, _) => "audio/mpeg,mpegversion=(int)4,stream-format=(string)adts",
        (0x11, _) => {
            wrapping = Wrapping::Latm;
            "audio/mpeg,mpegversion=(int)4,stream-format=(string)adts"
        }
        (0x81, _) | (0x06, Some(b"AC-3")) => "audio/x-ac3",
        (0x84 | 0x87, _) | (0x06, Some(b"EAC3")) => "audio/x-eac3",
        (0x82 | 0x85 | 0x86 | 0x8a, _) | (0x06, Some(b"DTS1" | b"DTS2" | b"DTS3")) => "audio/x-dts",
        (0x06, Some(b"Opus")) => {
            wrapping = Wrapping::Opus(channels);
            "audio/x-opus"
        }
        (0x06, _) => private?,
        _ => return None,
    };
    Some(Stream { pid, caps, wrapping, language })
}

/// Turns the time stamps of all streams into one continuous time line. Where files were joined, or the clock
/// of the sender jumped, the next part follows the previous one.
#[derive(Default)]
pub(super) struct Clock {
    /// Offsets of the stamps of this part, and of those of the part before.
    offsets: (i64, Option<i64>),
    /// The streams so far.
    streams: HashMap<u16, Heard>,
    /// The time at which all of them have ended.
    end: Option<i64>,
}

/// What came of a stream.
#[derive(Clone, Copy)]
struct Heard {
    /// Times of the first unit and of the last.
    first: i64,
    last: i64,
    /// Bytes of the last unit, and distance from the one before.
    bytes: usize,
    step: i64,
}

impl Clock {
    /// The time of a unit in ticks; `None` when it has no stamp.
    pub(super) fn time(&mut self, unit: &Unit) -> Option<(i64, i64)> {
        let stamp = unit.dts.or(unit.pts)?;
        let time = self.place(unit.pid, stamp);
        let ahead = unit.pts.map_or(0, |pts| wrapped(pts - stamp));
        let end = time + self.note(unit, time);
        self.end = Some(self.end.map_or(end, |before| before.max(end)));
        Some((time + ahead, time))
    }

    /// Records the time of a unit; returns its duration.
    fn note(&mut self, unit: &Unit, time: i64) -> i64 {
        /// Duration of a picture without another one near it.
        const PICTURE: i64 = TICKS_PER_S / 25;
        let bytes = unit.data.len();
        let new = Heard { first: time, last: time, bytes, step: 0 };
        let heard = self.streams.entry(unit.pid).or_insert(new);
        let before = *heard;
        let step = Some(time - before.last).filter(|step| (1..=TICKS_PER_S).contains(step));
        *heard = Heard { last: time, bytes, step: step.unwrap_or(before.step), ..before };
        match unit.length {
            Length::Picture if (1..=TICKS_PER_S / 5).contains(&heard.step) => heard.step,
            Length::Picture => PICTURE,
            Length::Ticks(ticks) => ticks,
            // As many ticks per byte as the unit before.
            Length::Bytes => {
                let ticks = i128::from(step.unwrap_or(0)) * bytes as i128;
                i64::try_from(ticks / (before.bytes.max(1) as i128)).unwrap_or(0).min(TICKS_PER_S)
            }
        }
    }

    /// A stream continues under another identifier.
    pub(super) fn rename(&mut self, from: u16, to: u16) {
        if from != to
            && let Some(heard) = self.streams.remove(&from)
        {
            self.streams.insert(to, heard);
        }
    }

    fn place(&mut self, pid: u16, stamp: i64) -> i64 {
        let Some(end) = self.end else { return stamp };
        let last = self.streams.get(&pid).map(|heard| heard.last);
        let expected = last.unwrap_or(end);
        let fits = |time: &i64| match last {
            Some(last) => {
                *time >= last - LARGEST_STEP_BACK
                    && (*time <= last + LARGEST_STEP_AHEAD || (*time - end).abs() <= LARGEST_STEP_AHEAD)
            }
            None => (*time - end).abs() <= LARGEST_STEP_AHEAD,
        };
        let (now, before) = self.offsets;
        let places = [Some(now), before].into_iter().flatten();
        let places = places.map(|offset| expected + wrapped(stamp + offset - expected)).filter(fits);
        if let Some(time) = places.min_by_key(|time| (time - expected).abs()) {
            return time;
        }
        // A new part follows the previous one. Streams that begin earlier than this one need room, as much as in
        // the first part.
        let earliest = self.streams.values().map(|heard| heard.first).min();
        let lead = self.streams.get(&pid).zip(earliest).map_or(0, |(heard, earliest)| heard.first - earliest);
        let begin = end + lead.min(TICKS_PER_S);
        self.offsets = (begin - stamp, Some(now));
        begin
    }
}

/// A difference of stamps, the nearest to 0 that it may mean.
fn wrapped(difference: i64) -> i64 {
    (difference + WRAP / 2).rem_euclid(WRAP) - WRAP / 2
}

/// Ticks as nanoseconds.
pub(super) fn ticks_ns(ticks: i64) -> i64 {
    (i128::from(ticks) * 1_000_000_000 / i128::from(TICKS_PER_S)) as i64
}

/// A table with its checksum.
#[cfg(any(fuzzing, test))]
fn table(kind: u8, number: u16, content: &[u8]) -> Vec<u8> {
    let length = 9 + content.len();
    let mut table = vec![kind, 0xb0 | (length >> 8) as u8 & 0x0f, length as u8];
    table.extend(number.to_be_bytes());
    table.extend([0xc1, 0, 0]);
    table.extend(content);
    table.extend(checksum(&table).to_be_bytes());
    table
}

/// Reads any bytes as a stream, and as the content of tables whose checksum is right.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut demuxer = Demuxer::new(layout(bytes).unwrap_or((188, 0)));
    let mut clock = Clock::default();
    let mut found: Vec<Found> = bytes.chunks(500).flat_map(|piece| demuxer.read(piece)).collect();
    found.extend(demuxer.finish());
    for found in found {
        if let Found::Unit(unit) = found {
            clock.time(&unit);
        }
    }
    let content = &bytes[..bytes.len().min(4000)];
    let mut demuxer = Demuxer::new((188, 0));
    demuxer.tables(0, &table(0, 1, content));
    demuxer.programs.push(0x1000);
    demuxer.tables(0x1000, &table(2, 1, content));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    fn unit(pid: u16, seconds: f64) -> Unit {
        let stamp = ((seconds * 90_000.0).round() as i64).rem_euclid(WRAP);
        let length = if pid == 1 { Length::Picture } else { Length::Ticks(0) };
        Unit { pid, pts: Some(stamp), dts: None, length, data: Vec::new() }
    }

    fn times(units: &[(u16, f64)]) -> Vec<f64> {
        let mut clock = Clock::default();
        let time = |&(pid, s): &(u16, f64)| clock.time(&unit(pid, s)).unwrap().0 as f64 / 90_000.0;
        units.iter().map(time).map(|s| (s * 1000.0).round() / 1000.0).collect()
    }

    #[test]
    fn a_part_that_starts_anew_follows_the_one_before() {
        // Both streams go back; the sound of the first part comes late. That of the second part begins earlier
        // than its pictures, but not before the first part has ended.
        let units = [(1, 1.4), (2, 1.38), (1, 3.8), (1, 1.4), (2, 3.5), (1, 1.44), (2, 1.38), (2, 1.6)];
        assert_eq!(times(&units), [1.4, 1.38, 3.8, 3.86, 3.5, 3.9, 3.84, 4.06]);
    }

    #[test]
    fn a_part_follows_when_the_last_sound_has_ended() {
        // Packets of 1024 samples at 48 kHz, of 7 bytes each.
        let packet = [0xff, 0xf1, 0x4c, 0x80, 0, 0xe0, 0xfc];
        assert_eq!(adts_ticks(&packet.repeat(14)), 14 * 1920);
        assert_eq!(adts_ticks(&packet[..6]), 0);
        let sound = |seconds: f64, length: Length, bytes: usize| Unit {
            length,
            data: vec![0; bytes],
            ..unit(2, seconds)
        };
        for (length, bytes) in [(Length::Ticks(27_000), 0), (Length::Bytes, 3000)] {
            let sounds = [1.4, 1.7, 2.0, 2.3, 2.6].map(|seconds| sound(seconds, length, bytes));
            let units = [&sounds[..], &[unit(1, 1.4), unit(1, 2.6), unit(1, 1.4)], &sounds[..1]].concat();
            let mut clock = Clock::default();
            let found = units.iter().map(|unit| clock.time(unit).unwrap().0 as f64 / 90_000.0);
            assert_eq!(found.collect::<Vec<_>>(), [1.4, 1.7, 2.0, 2.3, 2.6, 1.4, 2.6, 2.9, 2.9]);
        }
    }

    #[test]
    fn a_stamp_that_wraps_and_sound_that_comes_back_are_no_new_part() {
        let wrap_s = WRAP as f64 / 90_000.0;
        let near = wrap_s - 0.02;
        let found = times(&[(1, near), (1, near + 0.04), (2, near + 0.03)]);
        assert!((found[1] - found[0] - 0.04).abs() < 0.002 && (found[2] - found[0] - 0.03).abs() < 0.002);
        let long: Vec<(u16, f64)> = (0..30).map(|s| (1, f64::from(s))).collect();
        let units = [&[(2, 0.0)][..], &long, &[(2, 29.5)]].concat();
        assert_eq!(*times(&units).last().unwrap(), 29.5);
    }

    #[test]
    fn tables_are_checked() {
        let table =
            [0x00, 0xb0, 0x0d, 0x00, 0x01, 0xc1, 0x00, 0x00, 0x00, 0x01, 0xf0, 0x00, 0x2a, 0xb1, 0x04, 0xb2];
        assert_eq!(checksum(&table), 0);
        assert_ne!(checksum(&[&table[..9], &[2], &table[10..]].concat()), 0);
    }

    #[test]
    fn opus_packets_lose_their_headers() {
        // A start trim, then a packet of 3 bytes; then one of 256.
        let mut bytes = vec![0x7f, 0xf0, 3, 0, 120, 1, 2, 3, 0x7f, 0xe0, 255, 1];
        bytes.extend([9; 256]);
        assert_eq!(opus_packets(&bytes), [&[1, 2, 3][..], &[9; 256]]);
    }

    fn packet(pid: u16, number: u8) -> Vec<u8> {
        let mut packet = vec![SYNC, (pid >> 8) as u8, pid as u8, 0x10 | number & 0x0f];
        packet.resize(188, 0xaa);
        packet
    }

    fn lost(packets: &[Vec<u8>], piece: usize) -> u64 {
        let mut demuxer = Demuxer::new((188, 0));
        packets.concat().chunks(piece).for_each(|piece| drop(demuxer.read(piece)));
        demuxer.lost()
    }

    #[test]
    fn missing_packets_are_counted_however_they_are_read() {
        let sent = [0, 1, 2, 5, 6, 6, 7, 14, 15, 0, 1];
        let packets: Vec<_> = sent.iter().flat_map(|&number| [packet(7, number), packet(9, 3)]).collect();
        for piece in [1, 3, 187, 188, 190, 100_000] {
            assert_eq!(lost(&packets, piece), 2 + 6, "{piece}");
        }
        // A second file begins with its tables, and null packets have no counters.
        let joined = [packet(0, 3), packet(7, 9), packet(0, 0), packet(7, 2), packet(0x1fff, 5)];
        assert_eq!(lost(&joined, 188), 0);
        assert_eq!(lost(&[packet(0x1fff, 5), packet(0x1fff, 9)], 188), 0);
    }

    #[test]
    fn a_stream_is_known_by_its_packets_wherever_they_begin() {
        let wrapped = |before: usize, after: usize| -> Vec<u8> {
            let one = |number| [vec![1; before], packet(7, number), vec![2; after]].concat();
            (0..8).flat_map(one).collect()
        };
        for (before, after, found) in [(0, 0, (188, 0)), (4, 0, (192, 4)), (0, 16, (204, 0))] {
            let bytes = wrapped(before, after);
            for cut in [0, 1, 100, 187] {
                assert_eq!(layout(&bytes[cut..]), Some(found), "{found:?} without {cut} bytes");
            }
            let holed = [&bytes[..6 * found.0], &bytes[6 * found.0 + 3..]].concat();
            assert_eq!(layout(&holed), Some(found));
            assert_eq!(layout(&bytes[..4 * found.0]), None, "too few packets to be sure");
        }
        for other in [&b"ftyp"[..], &[SYNC; 5000], &[0; 5000]] {
            assert_eq!(layout(other), None);
        }
    }

    /// A packet with a payload and stuffing before it.
    fn carrying(pid: u16, number: u8, starts: bool, payload: &[u8]) -> Vec<u8> {
        let room = 184 - payload.len();
        let mut packet = vec![SYNC, (pid >> 8) as u8 | u8::from(starts) << 6, pid as u8];
        packet.push(if room > 0 { 0x30 } else { 0x10 } | number & 0x0f);
        if room > 0 {
            packet.push(room as u8 - 1);
            packet.resize(4 + room, 0);
        }
        packet.extend(payload);
        packet
    }

    /// A program of pictures, sound with a language, and Opus; two units of each.
    fn program() -> Vec<u8> {
        let list = [
            &[0xe1, 1, 0xf0, 0][..],
            &[0x1b, 0xe1, 1, 0xf0, 0],
            &[0x0f, 0xe1, 2, 0xf0, 6, 0x0a, 4, b'd', b'e', b'u', 0],
            &[0x06, 0xe1, 3, 0xf0, 10, 0x05, 4, b'O', b'p', b'u', b's', 0x7f, 2, 0x80, 2],
        ];
        let pointed = |table: Vec<u8>| [vec![0], table].concat();
        let mut packets = vec![
            carrying(0, 0, true, &pointed(table(0, 1, &[0, 1, 0xf0, 0]))),
            carrying(0x1000, 0, true, &pointed(table(2, 1, &list.concat()))),
        ];
        for number in 0..2 {
            for pid in 0x101..=0x103 {
                let opus = [0x7f, 0xe0, 3, 9, 8, 7];
                let head =
                    [0, 0, 1, 0xe0, 0, 0, 0x80, 0xc0, 10, 0x31, 0, 5, 0xbf, 0x21, 0x11, 0, 5, 0xbf, 0x21];
                packets.push(carrying(pid, 2 * number, true, &[&head[..], &opus].concat()));
                packets.push(carrying(pid, 2 * number + 1, false, &[number; 184]));
            }
        }
        packets.concat()
    }

    fn found(bytes: &[u8]) -> Vec<Found> {
        let mut demuxer = Demuxer::new((188, 0));
        let mut found: Vec<Found> = bytes.chunks(500).flat_map(|piece| demuxer.read(piece)).collect();
        found.extend(demuxer.finish());
        found
    }

    #[test]
    fn streams_of_any_bytes_are_survived() {
        let whole = program();
        let all = found(&whole);
        let Found::Streams(streams) = &all[0] else { panic!("{all:?}") };
        assert_eq!(streams.iter().map(Stream::codec).collect::<Vec<_>>(), ["H.264", "AAC", "Opus"]);
        assert_eq!(streams[1].language.as_deref(), Some("deu"));
        assert_eq!(all.len(), 1 + 6);
        mutations::survived_by("transport_stream", "program", &whole, 1500);
        let list = &whole[188..376];
        let list = &list[list.len() - (4 + 5 + 11 + 15 + 4)..list.len() - 4];
        mutations::survived_by("transport_stream", "table", list, 2000);
    }

    #[test]
    fn the_first_packet_of_a_joined_file_is_no_repetition_of_the_last() {
        let list = [&[0xe1, 1, 0xf0, 0][..], &[0x1b, 0xe1, 1, 0xf0, 0]].concat();
        let tables =
            [table(0, 1, &[0, 1, 0xf0, 0]), table(2, 1, &list)].map(|table| [vec![0], table].concat());
        let picture = |number: u8| [&[0, 0, 1, 0xe0, 0, 0, 0x80, 0, 0][..], &[number; 60]].concat();
        // Each file has one packet of pictures, and a repetition of that.
        let file = |number: u8| {
            let packets = [
                carrying(0, 0, true, &tables[0]),
                carrying(0x1000, 0, true, &tables[1]),
                carrying(0x101, 0, true, &picture(number)),
                carrying(0x101, 0, true, &picture(number)),
            ];
            packets.concat()
        };
        let both = [file(7), file(8)].concat();
        let found = found(&both).into_iter().filter_map(|found| match found {
            Found::Unit(unit) => Some(unit.data),
            _ => None,
        });
        assert_eq!(found.collect::<Vec<_>>(), [vec![7; 60], vec![8; 60]]);
        let mut demuxer = Demuxer::new((188, 0));
        drop(demuxer.read(&both));
        assert_eq!(demuxer.lost(), 0);
    }

    #[test]
    fn bytes_of_any_kind_are_survived() {
        let mut noise = 12345u32;
        for _ in 0..50 {
            let mut demuxer = Demuxer::new((188, 0));
            let mut bytes = vec![0u8; 188 * 40];
            for (n, byte) in bytes.iter_mut().enumerate() {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = if n % 188 == 0 { 0x47 } else { (noise >> 24) as u8 };
            }
            for packet in bytes.chunks_mut(188).step_by(2) {
                packet[1..5].copy_from_slice(&[0x40, 0, 0x10, 0]);
            }
            bytes.chunks(77).for_each(|piece| drop(demuxer.read(piece)));
            demuxer.finish();
        }
    }
}
