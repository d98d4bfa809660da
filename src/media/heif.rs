//! Stills in a HEIF file (ISO/IEC 23008-12): HEIC and AVIF, as phones write them.
//!
//! The boxes say which coded pictures belong together and how they are turned; GStreamer decodes them. Only
//! the main picture of the file is read, single or in tiles.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage, imageops};

use super::mp4::{boxes, inside, number_at};

/// Files with a larger main picture are refused.
const MOST_PIXELS: u64 = 96 << 20;
/// So are files with more tiles.
const MOST_TILES: usize = 1024;

/// The codec of the pictures of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// HEVC, in HEIC files.
    Hevc,
    /// AV1, in AVIF files.
    Av1,
}

/// The main picture of a file, not yet decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Main {
    pub(super) coding: Coding,
    /// The decoder's configuration, the same for all tiles.
    pub(super) configuration: Vec<u8>,
    /// Range, matrix, transfer and primaries, when the file says so.
    pub(super) colour: Option<[u16; 4]>,
    /// Coded pictures, row by row.
    pub(super) tiles: Vec<Vec<u8>>,
    columns: usize,
    width: u32,
    height: u32,
    changes: Vec<Change>,
}

/// An operation that makes the picture upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Quarter turns counterclockwise.
    Turn(u8),
    /// Top and bottom are swapped.
    Vertical,
    /// Left and right are swapped.
    Horizontal,
}

/// The items that a picture is made of, row by row.
struct Grid {
    tiles: Vec<u32>,
    columns: usize,
    /// Width and height, if stated here.
    size: Option<(u32, u32)>,
}

/// A property of an item: its kind and the whole box.
type Property<'a> = ([u8; 4], &'a [u8]);

/// The items in the file, from the meta box.
struct Items<'a> {
    file: &'a [u8],
    meta: Vec<([u8; 4], &'a [u8])>,
}

impl Main {
    /// Reads the boxes of a file; the error says what is wrong with it.
    pub(super) fn read(file: &[u8]) -> Result<Self, String> {
        let meta = boxes(file).into_iter().find(|(kind, _)| kind == b"meta");
        let meta = meta.and_then(|(_, meta)| meta.get(12..)).ok_or("it lists no pictures")?;
        let items = Items { file, meta: boxes(meta) };
        let main = items.main().ok_or("it names no main picture")?;
        let kind = items.kind(main).ok_or("its main picture is not listed")?;
        let Grid { tiles, columns, size } = match &kind {
            b"grid" => items.grid(main).ok_or("its list of tiles is invalid")?,
            _ => Grid { tiles: vec![main], columns: 1, size: None },
        };
        let first = *tiles.first().ok_or("it has no tiles")?;
        let properties = items.properties(first).ok_or("its main picture is not described")?;
        let coding = match items.kind(first).as_ref() {
            Some(b"hvc1" | b"hev1") => Coding::Hevc,
            Some(b"av01") => Coding::Av1,
            Some(kind) => return Err(format!("pictures coded as {} are not supported", kind.escape_ascii())),
            None => return Err("its main picture is not listed".to_owned()),
        };
        let (width, height) = size.or_else(|| extent(&properties)).ok_or("it does not state its size")?;
        if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MOST_PIXELS {
            return Err(format!("{width}x{height} pixels are not supported"));
        }
        let wanted = if coding == Coding::Hevc { b"hvcC" } else { b"av1C" };
        let configuration = |properties: &[Property<'_>]| {
            let found = properties.iter().find(|(kind, _)| kind == wanted);
            found.and_then(|(_, whole)| whole.get(8..)).map(<[u8]>::to_vec)
        };
        let told = configuration(&properties).ok_or("its coding is not described")?;
        let (mut coded, mut length) = (Vec::new(), 0);
        for tile in &tiles {
            let properties = items.properties(*tile).unwrap_or_default();
            if configuration(&properties).as_ref() != Some(&told) {
                return Err("its tiles are coded in different ways".to_owned());
            }
            let data = items.data(*tile).ok_or("a part of it is missing: it was cut short")?;
            length += data.len();
            if length > file.len() {
                return Err("its tiles overlap".to_owned());
            }
            coded.push(data);
        }
        let whole = items.properties(main).unwrap_or_default();
        let colour = colour(&whole).or_else(|| colour(&properties));
        let changes = whole.iter().filter_map(change).collect();
        Ok(Self { coding, configuration: told, colour, tiles: coded, columns, width, height, changes })
    }

    /// Width and height in pixels, as stored.
    pub(super) fn size(&self) -> [u32; 2] {
        [self.width, self.height]
    }

    /// A black picture of the stated size.
    pub(super) fn canvas(&self) -> RgbImage {
        RgbImage::new(self.width, self.height)
    }

    /// Lays a decoded tile onto the canvas. All are of one size.
    pub(super) fn lay(&self, canvas: &mut RgbImage, number: usize, tile: &RgbImage) {
        let (column, row) = ((number % self.columns) as i64, (number / self.columns) as i64);
        let (x, y) = (column * i64::from(tile.width()), row * i64::from(tile.height()));
        imageops::replace(canvas, tile, x, y);
    }

    /// The picture, upright.
    pub(super) fn upright(&self, canvas: RgbImage) -> RgbImage {
        self.changes.iter().fold(canvas, |picture, change| match change {
            Change::Turn(1) => imageops::rotate270(&picture),
            Change::Turn(2) => imageops::rotate180(&picture),
            Change::Turn(3) => imageops::rotate90(&picture),
            Change::Turn(_) => picture,
            Change::Vertical => imageops::flip_vertical(&picture),
            Change::Horizontal => imageops::flip_horizontal(&picture),
        })
    }
}

/// Properties of the main picture that need no decoding.
pub(super) struct About {
    /// Width and height in pixels, before it is turned.
    pub(super) stored: [u32; 2],
    /// The orientation of the file as an EXIF orientation, 1 to 8.
    pub(super) orientation: u8,
    /// The XMP packet.
    pub(super) xmp: Option<Vec<u8>>,
}

impl About {
    /// Reads the boxes of a file; `None` when its picture could not be read either.
    pub(super) fn read(file: &[u8]) -> Option<Self> {
        let main = Main::read(file).ok()?;
        let (_, meta) = boxes(file).into_iter().find(|(kind, _)| kind == b"meta")?;
        let items = Items { file, meta: boxes(meta.get(12..)?) };
        let xmp = items.packet().and_then(|item| items.data(item));
        Some(Self { stored: [main.width, main.height], orientation: main.orientation(), xmp })
    }
}

impl Main {
    /// The EXIF orientation that is equal to the operations of the file.
    fn orientation(&self) -> u8 {
        let mut probe = RgbImage::new(2, 2);
        probe.pixels_mut().zip(1..).for_each(|(pixel, number)| pixel.0 = [number; 3]);
        let wanted = self.upright(probe.clone());
        let turns = |exif: &u8| {
            let mut turned = DynamicImage::ImageRgb8(probe.clone());
            Orientation::from_exif(*exif).is_some_and(|orientation| {
                turned.apply_orientation(orientation);
                turned.as_rgb8() == Some(&wanted)
            })
        };
        (1..=8).find(turns).unwrap_or(1)
    }
}

impl<'a> Items<'a> {
    /// The number of the XMP packet.
    fn packet(&self) -> Option<u32> {
        let part = self.part(b"iinf")?;
        let entries = boxes(part.get(if *part.get(8)? == 0 { 14 } else { 16 }..)?);
        entries.into_iter().find_map(|(_, entry)| {
            let (number, at) = match *entry.get(8)? {
                2 => (short_at(entry, 12)?, 16),
                3 => (number_at(entry, 12)?, 18),
                _ => return None,
            };
            // A name, the type of the content, and its encoding, each ending in a zero.
            let mut texts = entry.get(at..)?.strip_prefix(b"mime")?.split(|&byte| byte == 0).skip(1);
            let is_xmp = texts.next()? == b"application/rdf+xml";
            (is_xmp && texts.next().is_none_or(<[u8]>::is_empty)).then_some(number)
        })
    }

    /// The whole of a box of the meta box.
    fn part(&self, wanted: &[u8; 4]) -> Option<&'a [u8]> {
        self.meta.iter().find(|(kind, _)| kind == wanted).map(|(_, whole)| *whole)
    }

    /// The number of the main picture.
    fn main(&self) -> Option<u32> {
        let part = self.part(b"pitm")?;
        if *part.get(8)? == 0 { short_at(part, 12) } else { number_at(part, 12) }
    }

    /// The type of an item.
    fn kind(&self, item: u32) -> Option<[u8; 4]> {
        let part = self.part(b"iinf")?;
        let entries = boxes(part.get(if *part.get(8)? == 0 { 14 } else { 16 }..)?);
        entries.into_iter().find_map(|(_, entry)| {
            let (number, at) = match *entry.get(8)? {
                2 => (short_at(entry, 12)?, 16),
                3 => (number_at(entry, 12)?, 18),
                _ => return None,
            };
            (number == item).then(|| entry.get(at..at + 4)?.try_into().ok())?
        })
    }

    /// The items that an item is made of, in order.
    fn made_of(&self, item: u32) -> Option<Vec<u32>> {
        let part = self.part(b"iref")?;
        let width = if *part.get(8)? == 0 { 2 } else { 4 };
        let number =
            |bytes: &[u8], at: usize| if width == 2 { short_at(bytes, at) } else { number_at(bytes, at) };
        boxes(part.get(12..)?).into_iter().find_map(|(kind, entry)| {
            if kind != *b"dimg" || number(entry, 8)? != item {
                return None;
            }
            let count = short_at(entry, 8 + width)? as usize;
            (0..count).map(|n| number(entry, 10 + width + n * width)).collect()
        })
    }

    /// The tiles of a picture.
    fn grid(&self, item: u32) -> Option<Grid> {
        let grid = self.data(item)?;
        let (rows, columns) = (usize::from(*grid.get(2)?) + 1, usize::from(*grid.get(3)?) + 1);
        let size = match grid.get(1)? & 1 {
            0 => (short_at(&grid, 4)?, short_at(&grid, 6)?),
            _ => (number_at(&grid, 4)?, number_at(&grid, 8)?),
        };
        let tiles = self.made_of(item).filter(|tiles| tiles.len() <= MOST_TILES)?;
        (tiles.len() == rows * columns).then_some(Grid { tiles, columns, size: Some(size) })
    }

    /// The properties of an item, in order.
    fn properties(&self, item: u32) -> Option<Vec<Property<'a>>> {
        let part = self.part(b"iprp")?;
        let known = boxes(inside(part, &[b"ipco"])?.get(8..)?);
        let list = inside(part, &[b"ipma"])?;
        let (version, wide) = (*list.get(8)?, list.get(11)? & 1 == 1);
        let mut at = 16;
        for _ in 0..number_at(list, 12)? {
            let number = if version == 0 { short_at(list, at)? } else { number_at(list, at)? };
            at += if version == 0 { 2 } else { 4 };
            let count = usize::from(*list.get(at)?);
            at += 1;
            let size = if wide { 2 } else { 1 };
            let indices = list.get(at..at + count * size)?;
            at += count * size;
            if number != item {
                continue;
            }
            let index = |bytes: &[u8]| match *bytes {
                [one] => usize::from(one & 0x7f),
                [high, low] => usize::from(high & 0x7f) << 8 | usize::from(low),
                _ => 0,
            };
            let wanted = indices.chunks(size).filter_map(|bytes| known.get(index(bytes).checked_sub(1)?));
            return Some(wanted.copied().collect());
        }
        None
    }

    /// The bytes of an item.
    fn data(&self, item: u32) -> Option<Vec<u8>> {
        let part = self.part(b"iloc")?;
        let version = *part.get(8)?;
        let sizes = [part.get(12)? >> 4, part.get(12)? & 15, part.get(13)? >> 4, part.get(13)? & 15];
        let [offset_size, length_size, base_size, index_size] = sizes.map(usize::from);
        let index_size = if version == 0 { 0 } else { index_size };
        let mut reader = Reader { bytes: part, at: 14 };
        for _ in 0..reader.number(if version < 2 { 2 } else { 4 })? {
            let number = reader.number(if version < 2 { 2 } else { 4 })?;
            let place = if version == 0 { 0 } else { reader.number(2)? & 15 };
            let elsewhere = reader.number(2)?;
            let base = reader.number(base_size)?;
            let extents = reader.number(2)?;
            if number != u64::from(item) {
                reader.at += extents as usize * (index_size + offset_size + length_size);
                continue;
            }
            let mut data = Vec::new();
            for _ in 0..extents {
                reader.number(index_size)?;
                let (offset, length) = (reader.number(offset_size)?, reader.number(length_size)?);
                let from = match (place, elsewhere) {
                    (0, 0) => self.file,
                    (1, 0) => self.part(b"idat")?.get(8..)?,
                    _ => return None,
                };
                let start = usize::try_from(base.checked_add(offset)?).ok()?;
                let length = usize::try_from(length).ok()?;
                let rest = from.get(start..)?;
                let extent = if length == 0 { rest } else { rest.get(..length)? };
                if data.len() + extent.len() > self.file.len() {
                    return None;
                }
                data.extend_from_slice(extent);
            }
            return Some(data);
        }
        None
    }
}

/// Reads consecutive numbers of varying size.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(self.at..self.at + size).filter(|bytes| bytes.len() <= 8)?;
        self.at += size;
        Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
}

fn short_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

/// Width and height.
fn extent(properties: &[Property<'_>]) -> Option<(u32, u32)> {
    let (_, whole) = properties.iter().find(|(kind, _)| kind == b"ispe")?;
    Some((number_at(whole, 12)?, number_at(whole, 16)?))
}

/// Range (1 for full), matrix, transfer and primaries, with the numbers of ISO/IEC 23091-2.
fn colour(properties: &[Property<'_>]) -> Option<[u16; 4]> {
    let (_, whole) =
        properties.iter().find(|(kind, whole)| kind == b"colr" && whole.get(8..12) == Some(b"nclx"))?;
    let [primaries, transfer, matrix] = [12, 14, 16].map(|at| short_at(whole, at).unwrap_or(2) as u16);
    Some([u16::from(whole.get(18)? >> 7), matrix, transfer, primaries])
}

fn change((kind, whole): &Property<'_>) -> Option<Change> {
    let value = *whole.get(8)?;
    match kind {
        b"irot" => Some(Change::Turn(value & 3)),
        b"imir" if value & 1 == 0 => Some(Change::Vertical),
        b"imir" => Some(Change::Horizontal),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    fn boxed(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
        let content = content.concat();
        [&(content.len() as u32 + 8).to_be_bytes()[..], kind, &content].concat()
    }

    /// One with version and flags 0.
    fn full(kind: &[u8; 4], content: &[&[u8]]) -> Vec<u8> {
        boxed(kind, &[&[0; 4], &content.concat()])
    }

    /// A picture of two adjacent tiles. `places` are the positions of the tiles' coded bytes in it.
    fn tiled(places: [(u32, u32); 2]) -> Vec<u8> {
        let entry = |item: u8, kind: &[u8; 4]| boxed(b"infe", &[&[2, 0, 0, 0, 0, item, 0, 0], kind, &[0]]);
        let known = boxed(
            b"ipco",
            &[
                &boxed(b"av1C", &[&[0x81, 0, 0, 0]]),
                &full(b"ispe", &[&16u32.to_be_bytes(), &8u32.to_be_bytes()]),
                &boxed(b"irot", &[&[1]]),
                &boxed(b"colr", &[b"nclx", &[0, 1, 0, 13, 0, 6, 0x80]]),
            ],
        );
        let used =
            full(b"ipma", &[&3u32.to_be_bytes(), &[0, 1, 2, 3, 4], &[0, 2, 1, 0x81], &[0, 3, 1, 0x81]]);
        let place = |item: u8, (at, length): (u32, u32)| {
            [&[0, item, 0, 0, 0, 0, 0, 1][..], &at.to_be_bytes(), &length.to_be_bytes()].concat()
        };
        let grid = [&1u16.to_be_bytes()[..], &[0, 1, 0, 0, 0, 1], &0u32.to_be_bytes(), &8u32.to_be_bytes()];
        let [first, second] = places;
        let lie = [&[1, 0, 0, 0, 0x44, 0, 0, 3][..], &grid.concat(), &place(2, first), &place(3, second)];
        let list = [&entry(1, b"grid"), &entry(2, b"av01"), &entry(3, b"av01")].map(Vec::as_slice).concat();
        let meta = full(
            b"meta",
            &[
                &full(b"pitm", &[&[0, 1]]),
                &full(b"iinf", &[&[0, 3], &list]),
                &full(b"iref", &[&boxed(b"dimg", &[&[0, 1, 0, 2, 0, 2, 0, 3]])]),
                &boxed(b"iprp", &[&known, &used]),
                &boxed(b"iloc", &lie),
                &boxed(b"idat", &[&[0, 0, 0, 1, 0, 32, 0, 8]]),
            ],
        );
        [boxed(b"ftyp", &[b"avif\0\0\0\0mif1"]), meta, boxed(b"mdat", &[&[7; 40]])].concat()
    }

    #[test]
    fn a_picture_of_tiles_is_found() {
        let main = Main::read(&tiled([(0, 30), (30, 20)])).unwrap();
        assert_eq!((main.width, main.height, main.columns, main.coding), (32, 8, 2, Coding::Av1));
        assert_eq!(main.tiles.iter().map(Vec::len).collect::<Vec<_>>(), [30, 20]);
        assert_eq!((main.changes, main.colour), (vec![Change::Turn(1)], Some([1, 6, 13, 1])));
    }

    /// The same with an XMP packet besides the picture, with the strings of its type and encoding.
    fn with_packet(kind: &[u8]) -> Vec<u8> {
        let plain = tiled([(0, 30), (30, 20)]);
        // One more item, whose data are at the end of the file.
        let entry = boxed(b"infe", &[&[2, 0, 0, 0, 0, 9, 0, 0], b"mime", b"XMP\0", kind, &[0]]);
        let end = (plain.len() + entry.len() + 16) as u32;
        let place = [&[0, 9, 0, 0, 0, 0, 0, 1][..], &end.to_be_bytes(), &5u32.to_be_bytes()];
        let meta = boxes(&plain).into_iter().find(|(kind, _)| kind == b"meta").unwrap().1;
        let mut parts = vec![0; 4];
        for (kind, whole) in boxes(&meta[12..]) {
            let mut content = whole[8..].to_vec();
            match &kind {
                b"iinf" => content.extend(&entry),
                b"iloc" => {
                    content[7] = 4;
                    content.extend(place.concat());
                }
                _ => {}
            }
            parts.extend(boxed(&kind, &[&content]));
        }
        let ftyp = boxed(b"ftyp", &[b"avif\0\0\0\0mif1"]);
        let mut file = [ftyp, boxed(b"meta", &[&parts]), boxed(b"mdat", &[&[7; 40]])].concat();
        assert_eq!(file.len(), end as usize);
        file.extend(b"<a/>\n");
        file
    }

    #[test]
    fn the_packet_and_the_orientation_are_told() {
        let about = |bytes: &[u8]| About::read(bytes).unwrap();
        let plain = about(&tiled([(0, 30), (30, 20)]));
        assert_eq!((plain.stored, plain.orientation, plain.xmp), ([32, 8], 8, None));
        let found = about(&with_packet(b"application/rdf+xml\0"));
        assert_eq!((found.stored, found.xmp.as_deref()), ([32, 8], Some(&b"<a/>\n"[..])));
        assert_eq!(about(&with_packet(b"application/rdf+xml\0deflate\0")).xmp, None, "packed");
        assert_eq!(about(&with_packet(b"text/plain\0")).xmp, None);
        mutations::survived_by("heif", "packet", &with_packet(b"application/rdf+xml\0"), 1000);
    }

    #[test]
    fn tiles_that_hold_more_than_the_file_are_refused() {
        let length = tiled([(0, 1); 2]).len() as u32;
        assert_eq!(Main::read(&tiled([(0, length); 2])), Err("its tiles overlap".to_owned()));
        assert!(Main::read(&tiled([(0, length), (1, length)])).unwrap_err().contains("is missing"));
    }

    #[test]
    fn files_of_any_bytes_are_survived() {
        mutations::survived_by("heif", "tiles", &tiled([(0, 30), (30, 20)]), 3000);
    }
}
