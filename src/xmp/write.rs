//! Writing regions into the text of an XMP packet, whose other bytes do not change.

use std::fmt::Write as _;
use std::ops::Range;

use roxmltree::{Document, Node};

use super::read::{self, child, items};
use super::{AREA, Area, DIMENSIONS, Frame, MP, MPREG, MPRI, MWG, OWN, RDF, Region, XmpError};
use crate::file::escaped;

/// Minimum intersection over union of two areas that are one face.
const SAME_FACE: f64 = 0.3;

/// A face to write.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRegion {
    /// The person's name.
    pub name: String,
    /// Its area in the picture as stored.
    pub area: Area,
    /// Angle in degrees to the nearest still of that person.
    pub angle_deg: f64,
}

/// A packet without regions.
fn empty() -> String {
    format!(
        "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n\
         <x:xmpmeta xmlns:x=\"adobe:ns:meta/\" x:xmptk=\"sphereface {}\">\n \
         <rdf:RDF xmlns:rdf=\"{RDF}\">\n </rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"w\"?>\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// The text of a packet, `existing` or a new one, with `regions` in both schemes. The photo has `stored`
/// pixels and this EXIF orientation.
///
/// Regions that this program wrote earlier are replaced. A region with a name from another source is kept,
/// and a face at its place is not written. An unnamed region at the place of a written face is replaced.
/// Everything else is unchanged.
///
/// # Errors
/// When `existing` is not XMP, or its regions belong to a picture of another aspect ratio.
pub fn write(
    existing: Option<&str>,
    regions: &[NewRegion],
    stored: [u32; 2],
    orientation: u8,
) -> Result<String, XmpError> {
    let mut text = existing.map_or_else(empty, str::to_owned);
    let there = read::read(&text)?;
    let frame = match there.frames(stored, orientation).first() {
        Some(Frame::Stored) => Frame::Stored,
        Some(Frame::Upright) => Frame::Upright,
        _ if there.faces.is_empty() => Frame::Stored,
        _ => {
            let applied_to = there.applied_to.unwrap_or_default();
            return Err(XmpError::OtherPicture { applied_to, stored });
        }
    };
    let shown = |region: &NewRegion| match frame {
        Frame::Upright => NewRegion { area: region.area.upright(orientation), ..region.clone() },
        _ => region.clone(),
    };
    let kept: Vec<&Region> = there.faces.iter().filter(|one| !one.ours && one.name.is_some()).collect();
    let is_new = |region: &NewRegion| kept.iter().all(|one| one.area.iou(&region.area) < SAME_FACE);
    let new: Vec<NewRegion> = regions.iter().map(shown).filter(is_new).collect();
    let size =
        if matches!(frame, Frame::Upright) && orientation >= 5 { [stored[1], stored[0]] } else { stored };
    for form in [&MWG_FORM, &MICROSOFT_FORM] {
        text = Edit::of(&text, form, &new, size)?;
    }
    Ok(text)
}

/// Changes to a text, from its end to its beginning.
#[derive(Default)]
struct Edit {
    changes: Vec<(Range<usize>, String)>,
}

/// The element names of one scheme, and how they are written and read.
struct Form {
    /// The property with everything in it.
    root: (&'static str, &'static str),
    /// The list inside.
    list: (&'static str, &'static str),
    prefixes: &'static [(&'static str, &'static str)],
    read: fn(Node<'_, '_>) -> Option<Region>,
    item: fn(&NewRegion, &str) -> String,
    /// The whole property, with declarations, around a list.
    property: fn(&str, &str, [u32; 2]) -> String,
}

const MWG_FORM: Form = Form {
    root: (MWG, "Regions"),
    list: (MWG, "RegionList"),
    prefixes: &[("rdf", RDF), ("mwg-rs", MWG), ("stArea", AREA), ("stDim", DIMENSIONS), ("sphereface", OWN)],
    read: |item| read::mwg(item, None),
    item: mwg_item,
    property: mwg_property,
};

const MICROSOFT_FORM: Form = Form {
    root: (MP, "RegionInfo"),
    list: (MPRI, "Regions"),
    prefixes: &[("rdf", RDF), ("MP", MP), ("MPRI", MPRI), ("MPReg", MPREG), ("sphereface", OWN)],
    read: read::microsoft,
    item: microsoft_item,
    property: microsoft_property,
};

impl Edit {
    fn of(text: &str, form: &Form, new: &[NewRegion], size: [u32; 2]) -> Result<String, XmpError> {
        let document = Document::parse(text)?;
        let Some(rdf) = document.descendants().find(|node| node.has_tag_name((RDF, "RDF"))) else {
            return Err(XmpError::NoRdf);
        };
        let root = document.descendants().find(|node| node.has_tag_name(form.root));
        let list = root.and_then(|root| child(root, form.list.0, form.list.1));
        let bag = list.and_then(|list| list.first_element_child());
        let mut edit = Self::default();
        for item in list.into_iter().flat_map(items) {
            let is_over = (form.read)(item).is_some_and(|old| {
                let covered = || new.iter().any(|one| one.area.iou(&old.area) >= SAME_FACE);
                old.ours || (old.name.is_none() && covered())
            });
            if is_over {
                edit.remove(text, item);
            }
        }
        if !new.is_empty() {
            let at = bag.or(list).or(root).unwrap_or(rdf);
            let declared = declarations(at, form.prefixes);
            let bag_of = |declared: &str| {
                let items: String = new.iter().map(|one| (form.item)(one, "")).collect();
                format!("<rdf:Bag{declared}>{items}</rdf:Bag>")
            };
            match (bag, list, root) {
                (Some(bag), ..) => {
                    let items: String = new.iter().map(|one| (form.item)(one, &declared)).collect();
                    edit.append(text, bag, &items);
                }
                (None, Some(list), _) => edit.append(text, list, &bag_of(&declared)),
                (None, None, Some(root)) => {
                    // It has no regions: it is replaced as a whole.
                    edit.changes.push((root.range(), (form.property)(&declared, &bag_of(""), size)));
                }
                (None, None, None) => {
                    let about = rdf
                        .children()
                        .find_map(|node| node.attribute((RDF, "about")))
                        .map(escaped)
                        .unwrap_or_default();
                    let property = (form.property)("", &bag_of(""), size);
                    edit.append(
                        text,
                        rdf,
                        &format!(
                            "\n  <rdf:Description rdf:about=\"{about}\"{declared}>\n   {property}\n  </rdf:Description>"
                        ),
                    );
                }
            }
        }
        Ok(edit.apply(text))
    }

    /// Removes an element with the space before it.
    fn remove(&mut self, text: &str, node: Node<'_, '_>) {
        let Range { start, end } = node.range();
        let start = text[..start].trim_end().len();
        self.changes.push((start..end, String::new()));
    }

    /// Adds text at the end of an element.
    fn append(&mut self, text: &str, node: Node<'_, '_>, more: &str) {
        let range = node.range();
        let own = &text[range.clone()];
        if let Some(open) = own.strip_suffix("/>") {
            // The empty tag becomes an opening and a closing one; its name ends at the first space.
            let name = open[1..].split(|c: char| c.is_whitespace()).next().unwrap_or_default();
            self.changes.push((range.clone(), format!("{}>{more}</{name}>", open.trim_end())));
        } else if let Some(close) = own.rfind("</") {
            // Before the space that indents the closing tag.
            let at = range.start + own[..close].trim_end().len();
            self.changes.push((at..at, more.to_owned()));
        }
    }

    fn apply(mut self, text: &str) -> String {
        self.changes.sort_by_key(|(range, _)| std::cmp::Reverse((range.start, range.end)));
        let mut text = text.to_owned();
        for (range, new) in self.changes {
            text.replace_range(range, &new);
        }
        text
    }
}

/// The declarations of those prefixes that do not have their meaning at `node`.
fn declarations(node: Node<'_, '_>, prefixes: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (prefix, uri) in prefixes {
        if node.lookup_namespace_uri(Some(prefix)) != Some(*uri) {
            let _ = write!(text, " xmlns:{prefix}=\"{uri}\"");
        }
    }
    text
}

fn mwg_property(declared: &str, bag: &str, [width, height]: [u32; 2]) -> String {
    format!(
        "<mwg-rs:Regions{declared} rdf:parseType=\"Resource\">\
         <mwg-rs:AppliedToDimensions stDim:w=\"{width}\" stDim:h=\"{height}\" stDim:unit=\"pixel\"/>\
         <mwg-rs:RegionList>{bag}</mwg-rs:RegionList></mwg-rs:Regions>"
    )
}

fn microsoft_property(declared: &str, bag: &str, _: [u32; 2]) -> String {
    format!(
        "<MP:RegionInfo{declared} rdf:parseType=\"Resource\"><MPRI:Regions>{bag}</MPRI:Regions></MP:RegionInfo>"
    )
}

fn mwg_item(region: &NewRegion, declared: &str) -> String {
    let Area { width, height, .. } = region.area;
    let [x, y] = region.area.centre();
    let (name, angle) = (escaped(&region.name), region.angle_deg);
    format!(
        "\n    <rdf:li{declared} rdf:parseType=\"Resource\"><mwg-rs:Name>{name}</mwg-rs:Name>\
         <mwg-rs:Type>Face</mwg-rs:Type>\
         <mwg-rs:Area stArea:x=\"{x:.6}\" stArea:y=\"{y:.6}\" stArea:w=\"{width:.6}\" stArea:h=\"{height:.6}\" stArea:unit=\"normalized\"/>\
         <mwg-rs:Extensions sphereface:Angle=\"{angle:.2}\"/></rdf:li>"
    )
}

fn microsoft_item(region: &NewRegion, declared: &str) -> String {
    let Area { left, top, width, height } = region.area;
    let (name, angle) = (escaped(&region.name), region.angle_deg);
    format!(
        "\n    <rdf:li{declared} rdf:parseType=\"Resource\"><MPReg:PersonDisplayName>{name}</MPReg:PersonDisplayName>\
         <MPReg:Rectangle>{left:.6}, {top:.6}, {width:.6}, {height:.6}</MPReg:Rectangle>\
         <sphereface:Angle>{angle:.2}</sphereface:Angle></rdf:li>"
    )
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::*;

    fn region(name: &str, left: f64) -> NewRegion {
        let area = Area { left, top: 0.25, width: 0.125, height: 0.25 };
        NewRegion { name: name.into(), area, angle_deg: 41.25 }
    }

    /// Names and left edges by scheme.
    fn names(text: &str, scheme: Scheme) -> Vec<(String, f64)> {
        let faces = read::read(text).unwrap().faces.into_iter().filter(|face| face.scheme == scheme);
        faces.map(|face| (face.name.unwrap_or_default(), face.area.left)).collect()
    }

    #[test]
    fn a_new_packet_holds_both_schemes() {
        let text = write(None, &[region("A & <B> \"C\"", 0.5)], [400, 200], 1).unwrap();
        for scheme in [Scheme::Mwg, Scheme::Microsoft] {
            assert_eq!(names(&text, scheme), [("A & <B> \"C\"".to_owned(), 0.5)]);
        }
        let there = read::read(&text).unwrap();
        assert_eq!(there.applied_to, Some([400.0, 200.0]));
        assert!(there.faces.iter().all(|face| face.ours));
        assert_eq!(write(None, &[], [400, 200], 1).unwrap(), empty(), "nobody, nothing");
    }

    #[test]
    fn writing_again_replaces_what_was_written() {
        let first = write(None, &[region("Ada", 0.5), region("Bob", 0.1)], [400, 200], 1).unwrap();
        let again = write(Some(&first), &[region("Ada", 0.5), region("Bob", 0.1)], [400, 200], 1).unwrap();
        assert_eq!(again, first);
        let other = write(Some(&first), &[region("Cleo", 0.1)], [400, 200], 1).unwrap();
        assert_eq!(names(&other, Scheme::Mwg), [("Cleo".to_owned(), 0.1)]);
        assert_eq!(names(&other, Scheme::Microsoft), [("Cleo".to_owned(), 0.1)]);
        let none = write(Some(&other), &[], [400, 200], 1).unwrap();
        assert_eq!(read::read(&none).unwrap().faces, []);
    }

    /// A sidecar of another program with two named regions, an unnamed one and much else.
    const THEIRS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- kept -->
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <r:Description r:about="uuid:1" xmlns:m="http://www.metadataworkinggroup.com/schemas/regions/"
    xmlns:a="http://ns.adobe.com/xmp/sType/Area#" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4">
   <m:Regions r:parseType="Resource">
    <m:RegionList>
     <r:Bag>
      <r:li m:Name="Mum" m:Type="Face"><m:Area a:x="0.55" a:y="0.4" a:w="0.1" a:h="0.25"/></r:li>
      <r:li m:Type="Face"><m:Area a:x="0.16" a:y="0.375" a:w="0.12" a:h="0.25"/></r:li>
      <r:li m:Name="Rex" m:Type="Pet"><m:Area a:x="0.16" a:y="0.375" a:w="0.12" a:h="0.25"/></r:li>
     </r:Bag>
    </m:RegionList>
   </m:Regions>
  </r:Description>
 </r:RDF>
</x:xmpmeta>
"#;

    #[test]
    fn what_others_wrote_stays() {
        let new = [region("Ada", 0.5), region("Bob", 0.1), region("Cleo", 0.8)];
        let text = write(Some(THEIRS), &new, [400, 200], 1).unwrap();
        // The name given by hand is kept, in both schemes; the unnamed region got one.
        let found: Vec<_> = names(&text, Scheme::Mwg).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["Mum", "Bob", "Cleo"]);
        let found: Vec<_> = names(&text, Scheme::Microsoft).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["Bob", "Cleo"]);
        let unnamed = THEIRS.lines().nth(10).unwrap();
        for line in THEIRS.lines().filter(|line| *line != unnamed) {
            assert!(text.contains(line), "{line} is gone:\n{text}");
        }
        assert!(!text.contains(unnamed));
        assert_eq!(text.matches("uuid:1").count(), 2, "what is added is about the same resource");
        // Without a face, the text does not change.
        assert_eq!(write(Some(THEIRS), &[], [400, 200], 1).unwrap(), THEIRS);
        assert_eq!(write(Some(&text), &new, [400, 200], 1).unwrap(), text);
    }

    #[test]
    fn lists_that_are_empty_or_missing_are_filled() {
        let around = |inside: &str| {
            format!(
                r#"<rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" xmlns:mwg-rs="{MWG}" xmlns:MP="{MP}" xmlns:MPRI="{MPRI}">{inside}</rdf:Description></rdf:RDF>"#
            )
        };
        for inside in [
            "",
            "<mwg-rs:Regions/>",
            "<mwg-rs:Regions rdf:parseType=\"Resource\"></mwg-rs:Regions>",
            "<mwg-rs:Regions rdf:parseType=\"Resource\"><mwg-rs:RegionList/></mwg-rs:Regions>",
            "<mwg-rs:Regions rdf:parseType=\"Resource\"><mwg-rs:RegionList><rdf:Bag /></mwg-rs:RegionList></mwg-rs:Regions>",
            "<mwg-rs:Regions><rdf:Description><mwg-rs:RegionList><rdf:Seq></rdf:Seq></mwg-rs:RegionList></rdf:Description></mwg-rs:Regions>",
            "<MP:RegionInfo rdf:parseType=\"Resource\"><MPRI:Regions><rdf:Bag/></MPRI:Regions></MP:RegionInfo>",
        ] {
            let text = write(Some(&around(inside)), &[region("Ada", 0.5)], [400, 200], 1).unwrap();
            for scheme in [Scheme::Mwg, Scheme::Microsoft] {
                assert_eq!(names(&text, scheme), [("Ada".to_owned(), 0.5)], "{inside}: {text}");
            }
            assert_eq!(text.matches("mwg-rs:Regions ").count().max(1), 1, "{text}");
        }
    }

    #[test]
    fn regions_go_where_those_that_are_there_are_relative_to() {
        let dimensions = |w: u32, h: u32| {
            THEIRS.replace(
                "<m:RegionList>",
                &format!(
                    r#"<m:AppliedToDimensions xmlns:d="{DIMENSIONS}" d:w="{w}" d:h="{h}" d:unit="pixel"/><m:RegionList>"#
                ),
            )
        };
        let new = [region("Cleo", 0.8)];
        let place = |text: &str| {
            let faces = read::read(text).unwrap().faces;
            faces.into_iter().find(|face| face.name.as_deref() == Some("Cleo")).unwrap().area
        };
        let stored = place(&write(Some(&dimensions(200, 100)), &new, [400, 200], 6).unwrap());
        assert!(stored.iou(&new[0].area) > 0.99);
        let shown = place(&write(Some(&dimensions(100, 200)), &new, [400, 200], 6).unwrap());
        assert!(shown.iou(&new[0].area.upright(6)) > 0.99);
        let error = write(Some(&dimensions(100, 100)), &new, [400, 200], 1).unwrap_err();
        assert!(error.to_string().contains("100x100"), "{error}");
    }
}
