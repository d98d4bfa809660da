//! AAC in LATM (ISO/IEC 14496-3, 1.7), as digital television sends it, turned into AAC in ADTS.
//!
//! GStreamer's parser drops LATM frames until it meets the second configuration, so that sound is missing at the
//! beginning. In ADTS every frame carries its configuration, and the coded samples stay as they are.

/// Longest frame of LATM: its length has 13 bits.
const LONGEST: usize = (1 << 13) + HEADER;
/// Bytes of the synchronisation word and the length.
const HEADER: usize = 3;

/// One stream of AAC.
#[derive(Debug, Default)]
pub(super) struct Latm {
    config: Option<Config>,
    /// The beginning of a frame that is not whole yet.
    rest: Vec<u8>,
}

/// What ADTS says of a stream, and how its payloads are wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Config {
    /// Audio object type less one.
    profile: u8,
    /// Index of the sample rate.
    rate: u8,
    channels: u8,
    /// Payloads per frame.
    payloads: u8,
}

impl Latm {
    /// The whole frames in ADTS. What is no frame, or of a kind that ADTS does not have, is left out.
    pub(super) fn adts(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let (mut out, mut at) = (Vec::with_capacity(self.rest.len()), 0);
        while let Some(head) = self.rest.get(at..at + HEADER) {
            // Eleven bits 0x2b7, then the length.
            let (sync, length) = (
                u16::from(head[0]) << 3 | u16::from(head[1]) >> 5,
                usize::from(head[1] & 0x1f) << 8 | usize::from(head[2]),
            );
            if sync != 0x2b7 {
                at += 1;
                continue;
            }
            let Some(frame) = self.rest.get(at + HEADER..at + HEADER + length) else { break };
            // What follows a damaged frame is read again.
            let _ = element(&mut Bits::new(frame), &mut self.config, &mut out);
            at += HEADER + length;
        }
        self.rest.drain(..at);
        if self.rest.len() > LONGEST {
            self.rest.clear();
        }
        out
    }
}

/// An `AudioMuxElement` with its configuration inside; `None` where it ends early or is of another kind.
fn element(bits: &mut Bits<'_>, config: &mut Option<Config>, out: &mut Vec<u8>) -> Option<()> {
    let same = bits.read(1)? == 1;
    if !same {
        *config = stream_mux_config(bits);
    }
    let Config { profile, rate, channels, payloads } = (*config)?;
    for _ in 0..payloads {
        let mut length = 0;
        loop {
            let part = bits.read(8)?;
            length += part as usize;
            if part != 255 {
                break;
            }
        }
        let payload =
            (0..length).map(|_| bits.read(8).map(|byte| byte as u8)).collect::<Option<Vec<u8>>>()?;
        let size = u16::try_from(payload.len() + 7).ok().filter(|&size| size < 1 << 13)?;
        out.extend([
            0xff,
            0xf1,
            profile << 6 | rate << 2 | channels >> 2,
            (channels & 3) << 6 | (size >> 11) as u8,
            (size >> 3) as u8,
            // The fullness of the buffer is not known.
            (size << 5) as u8 | 0x1f,
            0xfc,
        ]);
        out.extend(payload);
    }
    Some(())
}

/// A `StreamMuxConfig` of one program with one layer of AAC.
fn stream_mux_config(bits: &mut Bits<'_>) -> Option<Config> {
    let version = bits.read(1)?;
    if version == 1 {
        let same_syntax = bits.read(1)? == 0;
        bits.value()?;
        same_syntax.then_some(())?;
    }
    let same_time_framing = bits.read(1)? == 1;
    let payloads = bits.read(6)? as u8 + 1;
    let (programs, layers) = (bits.read(4)? + 1, bits.read(3)? + 1);
    (same_time_framing && programs == 1 && layers == 1).then_some(())?;
    let config = match version {
        0 => audio_specific_config(bits)?,
        _ => {
            let length = bits.value()? as usize;
            let end = bits.at.checked_add(length)?;
            let config = audio_specific_config(bits)?;
            (bits.at <= end).then_some(())?;
            bits.at = end;
            config
        }
    };
    let frame_length_type = bits.read(3)?;
    (frame_length_type == 0).then_some(())?;
    let _buffer_fullness = bits.read(8)?;
    if bits.read(1)? == 1 {
        // The length of other data, which stand behind the payloads.
        if version == 1 {
            bits.value()?;
        } else {
            while bits.read(9)? & 0x100 != 0 {}
        }
    }
    if bits.read(1)? == 1 {
        let _checksum = bits.read(8)?;
    }
    Some(Config { payloads, ..config })
}

/// An `AudioSpecificConfig` that ADTS can say.
fn audio_specific_config(bits: &mut Bits<'_>) -> Option<Config> {
    let kind = |bits: &mut Bits<'_>| match bits.read(5)? {
        31 => None,
        kind => Some(kind),
    };
    // Index 15 stands for a rate of any number.
    let rate = |bits: &mut Bits<'_>| bits.read(4).filter(|&rate| rate < 13);
    let mut object = kind(bits)?;
    let core_rate = rate(bits)?;
    let channels = bits.read(4)?;
    // Spectral band replication and parametric stereo: decoders find them in the payload.
    if object == 5 || object == 29 {
        rate(bits)?;
        object = kind(bits)?;
    }
    let short_frames = bits.read(1)? == 1;
    if bits.read(1)? == 1 {
        let _core_coder_delay = bits.read(14)?;
    }
    let extended = bits.read(1)? == 1;
    let says = (1..=4).contains(&object) && (1..=7).contains(&channels) && !short_frames && !extended;
    says.then(|| Config {
        profile: object as u8 - 1,
        rate: core_rate as u8,
        channels: channels as u8,
        payloads: 1,
    })
}

/// Bytes as bits, the highest of each first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Up to 16 bits as a number; `None` where there are fewer.
    fn read(&mut self, count: usize) -> Option<u32> {
        let first = self.at / 8;
        let mut window = 0;
        for at in first..first + 3 {
            window = window << 8 | u32::from(self.bytes.get(at).copied().unwrap_or(0));
        }
        let end = self.at.checked_add(count).filter(|&end| end <= 8 * self.bytes.len())?;
        let value = window >> (24 - self.at % 8 - count) & ((1 << count) - 1);
        self.at = end;
        Some(value)
    }

    /// `LatmGetValue`: two bits say of how many bytes the number is.
    fn value(&mut self) -> Option<u32> {
        let bytes = self.read(2)? + 1;
        (0..bytes).try_fold(0u32, |value, _| Some(value << 8 | self.read(8)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits (number, count) as bytes.
    fn packed(fields: &[(u32, usize)]) -> Vec<u8> {
        let bits: Vec<u8> = fields
            .iter()
            .flat_map(|&(value, count)| (0..count).rev().map(move |bit| (value >> bit & 1) as u8))
            .collect();
        let byte = |bits: &[u8]| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | bit << (7 - at));
        bits.chunks(8).map(byte).collect()
    }

    /// A frame of LATM with payloads of these lengths.
    fn frame(config: &[(u32, usize)], lengths: &[usize]) -> Vec<u8> {
        let mut fields = config.to_vec();
        for &length in lengths {
            fields.extend((0..length / 255).map(|_| (255, 8)));
            fields.push(((length % 255) as u32, 8));
            fields.extend((0..length).map(|at| (at as u32 % 251, 8)));
        }
        let body = packed(&fields);
        let head = [0x56, 0xe0 | (body.len() >> 8) as u8, body.len() as u8];
        [&head[..], &body].concat()
    }

    /// The configuration of AAC-LC with 44.1 kHz in stereo, one payload per frame.
    const STEREO: [(u32, usize); 11] =
        [(0, 1), (0, 1), (1, 1), (0, 6), (0, 4), (0, 3), (2, 5), (4, 4), (2, 4), (0, 3), (0, 3)];
    const TAIL: [(u32, usize); 3] = [(0xff, 8), (0, 1), (0, 1)];

    fn payloads(adts: &[u8]) -> Vec<&[u8]> {
        let (mut rest, mut found) = (adts, Vec::new());
        while let Some(head) = rest.get(..7) {
            assert_eq!([head[0], head[1], head[2], head[3] & 0xc0], [0xff, 0xf1, 0x50, 0x80]);
            let size = usize::from(head[3] & 3) << 11 | usize::from(head[4]) << 3 | usize::from(head[5]) >> 5;
            found.push(&rest[7..size]);
            rest = &rest[size..];
        }
        assert!(rest.is_empty());
        found
    }

    #[test]
    fn payloads_come_out_whole_however_the_bytes_are_cut() {
        let lengths = [3, 254, 255, 256, 700];
        let first = [&STEREO[..], &TAIL].concat();
        let mut stream = vec![1, 2, 0x56];
        for (number, &length) in lengths.iter().enumerate() {
            // Only the first frame says what the sound is.
            let config: &[(u32, usize)] = if number == 0 { &first } else { &[(1, 1)] };
            stream.extend(frame(config, &[length]));
        }
        for piece in [1, 7, 188, 4096] {
            let mut latm = Latm::default();
            let adts: Vec<u8> = stream.chunks(piece).flat_map(|piece| latm.adts(piece)).collect();
            let found = payloads(&adts);
            assert_eq!(found.iter().map(|one| one.len()).collect::<Vec<_>>(), lengths, "{piece}");
            let right = |one: &&[u8]| one.iter().enumerate().all(|(at, &byte)| usize::from(byte) == at % 251);
            assert!(found.iter().all(right));
        }
    }

    #[test]
    fn what_a_configuration_may_hold_is_skipped() {
        // Two payloads, other data, a checksum, and band replication.
        let band = [(5, 5), (7, 4), (2, 4), (4, 4), (2, 5), (0, 3)];
        let tail = [(0, 3), (0xff, 8), (1, 1), (0x105, 9), (3, 9), (1, 1), (0x55, 8)];
        let head = [(0, 1), (0, 1), (1, 1), (1, 6), (0, 4), (0, 3)];
        let adts = Latm::default().adts(&frame(&[&head[..], &band, &tail].concat(), &[10, 20]));
        assert_eq!(adts.len(), 7 + 10 + 7 + 20);
        assert_eq!(adts[2], 1 << 6 | 7 << 2, "the core has half the rate");
        // Version 1 tells how long the configuration is: three bits more than are read here.
        let head = [(0, 1), (1, 1), (0, 1), (0, 2), (9, 8), (1, 1), (0, 6), (0, 4), (0, 3), (0, 2), (19, 8)];
        let own = [(2, 5), (4, 4), (2, 4), (0, 3), (7, 3)];
        let tail = [(0, 3), (0xff, 8), (1, 1), (1, 2), (300, 16), (0, 1)];
        let adts = Latm::default().adts(&frame(&[&head[..], &own, &tail].concat(), &[30]));
        assert_eq!(payloads(&adts)[0].len(), 30);
    }

    #[test]
    fn other_kinds_and_damage_give_nothing_and_no_panic() {
        let mut fields = [&STEREO[..], &TAIL].concat();
        fields[6] = (42 - 11, 5);
        assert!(Latm::default().adts(&frame(&fields, &[10])).is_empty(), "another coder");
        assert!(Latm::default().adts(&frame(&[(1, 1)], &[10])).is_empty(), "no configuration yet");
        let whole = frame(&[&STEREO[..], &TAIL].concat(), &[40]);
        for at in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            let mut latm = Latm::default();
            latm.adts(&damaged);
            latm.adts(&whole[..at / 8]);
        }
        let mut latm = Latm::default();
        (0..100).for_each(|_| drop(latm.adts(&[0x56, 0xff, 0xff, 0, 1, 2])));
        assert!(latm.rest.len() <= LONGEST);
    }
}
