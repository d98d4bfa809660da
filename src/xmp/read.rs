//! Regions from the text of an XMP packet.
//!
//! RDF can write one thing in many ways: the fields of a structure as attributes or as elements, in an
//! `rdf:Description` or with `rdf:parseType="Resource"`. Programs use all of them.

use roxmltree::{Document, Node};

use super::{Area, CAMERA_RAW, MP, MPREG, MPRI, MWG, OWN, RDF, Region, Regions, Scheme, XmpError};

/// Reads the faces of an XMP packet or sidecar. Regions of other kinds (pets, bar codes, focus) and those
/// without an area are skipped.
///
/// # Errors
/// When the text is not XML or holds no RDF.
pub fn read(text: &str) -> Result<Regions, XmpError> {
    let document = Document::parse(text)?;
    if !document.descendants().any(|node| node.has_tag_name((RDF, "RDF"))) {
        return Err(XmpError::NoRdf);
    }
    let mut regions = Regions { crop: crop(&document), ..Regions::default() };
    for list in document.descendants().filter(|node| node.has_tag_name((MWG, "Regions"))) {
        let dimensions = child(list, MWG, "AppliedToDimensions");
        let number = |name| dimensions.and_then(|node| number(field_of_any(node, name)?));
        let applied_to = number("w").zip(number("h")).map(|(w, h)| [w, h]);
        regions.applied_to = regions.applied_to.or(applied_to);
        let items = child(list, MWG, "RegionList").into_iter().flat_map(items);
        regions.faces.extend(items.filter_map(|item| mwg(item, applied_to)));
    }
    for list in document.descendants().filter(|node| node.has_tag_name((MP, "RegionInfo"))) {
        let items = child(list, MPRI, "Regions").into_iter().flat_map(items);
        regions.faces.extend(items.filter_map(microsoft));
    }
    Ok(regions)
}

/// A region of the Metadata Working Group, if it is a face.
pub(super) fn mwg(item: Node<'_, '_>, applied_to: Option<[f64; 2]>) -> Option<Region> {
    if field(item, MWG, "Type").is_some_and(|kind| !kind.eq_ignore_ascii_case("face")) {
        return None;
    }
    let area = child(item, MWG, "Area")?;
    let value = |name| number(field_of_any(area, name)?);
    let [x, y] = [value("x")?, value("y")?];
    let [mut width, mut height] = match (value("w").zip(value("h")), value("d")) {
        (Some((width, height)), _) => [width, height],
        // A circle; its diameter is a fraction of the shorter side.
        (None, Some(d)) => {
            let [w, h] = applied_to.unwrap_or([1.0; 2]);
            [d * w.min(h) / w, d * w.min(h) / h]
        }
        (None, None) => return None,
    };
    let [mut x, mut y] = [x, y];
    if let (Some("pixel"), Some([w, h])) = (field_of_any(area, "unit"), applied_to) {
        (x, width, y, height) = (x / w, width / w, y / h, height / h);
    }
    let area = Area::between([x - width / 2.0, y - height / 2.0], [x + width / 2.0, y + height / 2.0]);
    let ours = child(item, MWG, "Extensions").is_some_and(is_marked);
    let name = named(field(item, MWG, "Name"));
    (area.width > 0.0 && area.height > 0.0).then_some(Region { name, area, scheme: Scheme::Mwg, ours })
}

/// A region of Microsoft's.
pub(super) fn microsoft(item: Node<'_, '_>) -> Option<Region> {
    let numbers: Option<Vec<f64>> = field(item, MPREG, "Rectangle")?.split(',').map(number).collect();
    let [left, top, width, height] = <[f64; 4]>::try_from(numbers?).ok()?;
    let area = Area::between([left, top], [left + width, top + height]);
    let name = named(field(item, MPREG, "PersonDisplayName"));
    let ours = is_marked(item);
    (area.width > 0.0 && area.height > 0.0).then_some(Region { name, area, scheme: Scheme::Microsoft, ours })
}

/// The part of the picture that Adobe's programs show.
fn crop(document: &Document<'_>) -> Option<Area> {
    let value = |name| {
        document.descendants().filter(|node| node.is_element()).find_map(|node| {
            let element = || node.has_tag_name((CAMERA_RAW, name)).then(|| node.text()).flatten();
            node.attribute((CAMERA_RAW, name)).or_else(element)
        })
    };
    if !value("HasCrop")?.trim().eq_ignore_ascii_case("true") {
        return None;
    }
    // A tilted crop is not a rectangle of the picture.
    if value("CropAngle").and_then(number).is_some_and(|angle| angle != 0.0) {
        return None;
    }
    let edge = |name| number(value(name)?);
    let part =
        Area::between([edge("CropLeft")?, edge("CropTop")?], [edge("CropRight")?, edge("CropBottom")?]);
    (part.width > 0.0 && part.height > 0.0).then_some(part)
}

fn named(name: Option<&str>) -> Option<String> {
    name.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned)
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// The node with the fields of a structure.
pub(super) fn structure<'a, 'i>(node: Node<'a, 'i>) -> Node<'a, 'i> {
    node.children().find(|child| child.has_tag_name((RDF, "Description"))).unwrap_or(node)
}

/// A field of a structure that is itself a structure or a list.
pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, namespace: &str, name: &str) -> Option<Node<'a, 'i>> {
    structure(node).children().find(|child| child.has_tag_name((namespace, name)))
}

/// A field of a structure that is text.
fn field<'a>(node: Node<'a, '_>, namespace: &str, name: &str) -> Option<&'a str> {
    let inner = structure(node);
    let attribute = || node.attribute((namespace, name)).or_else(|| inner.attribute((namespace, name)));
    attribute().or_else(|| {
        let element = child(node, namespace, name)?;
        // Text may come in several languages; the first is the default.
        items(element).next().unwrap_or(element).text()
    })
}

/// The same in any namespace: programs use different ones for areas and dimensions.
fn field_of_any<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let inner = structure(node);
    let attributes = || node.attributes().chain(inner.attributes());
    let attribute = attributes().find(|one| one.name() == name && one.namespace().is_some());
    attribute.map(|one| one.value()).or_else(|| {
        inner.children().find(|child| child.is_element() && child.tag_name().name() == name)?.text()
    })
}

/// The items of a list.
pub(super) fn items<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    let lists = node
        .children()
        .filter(|child| ["Bag", "Seq", "Alt"].iter().any(|name| child.has_tag_name((RDF, *name))));
    lists.flat_map(|list| list.children().filter(|child| child.has_tag_name((RDF, "li"))))
}

/// Whether a structure has the mark of this program.
fn is_marked(node: Node<'_, '_>) -> bool {
    field(node, OWN, "Angle").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutations;

    const NAMESPACES: &str = r#"xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
        xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
        xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#" xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#"
        xmlns:MP="http://ns.microsoft.com/photo/1.2/" xmlns:MPRI="http://ns.microsoft.com/photo/1.2/t/RegionInfo#"
        xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#"
        xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/""#;

    fn packet(inside: &str) -> String {
        format!(
            r#"<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {NAMESPACES}><rdf:Description rdf:about="">{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"#
        )
    }

    fn list(items: &str) -> String {
        packet(&format!(
            r#"<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="400" stDim:h="200" stDim:unit="pixel"/>
            <mwg-rs:RegionList><rdf:Bag>{items}</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>"#
        ))
    }

    #[track_caller]
    fn one(text: &str) -> Region {
        let regions = read(text).unwrap();
        assert_eq!(regions.faces.len(), 1, "{regions:?}");
        regions.faces[0].clone()
    }

    #[test]
    fn one_region_is_read_in_all_ways_of_writing_it() {
        // The forms of Lightroom, exiftool, digiKam and a writer of plain elements.
        let forms = [
            r#"<rdf:li><rdf:Description mwg-rs:Name="Zoë &amp; co" mwg-rs:Type="Face">
                <mwg-rs:Area stArea:x="0.5" stArea:y="0.25" stArea:w="0.2" stArea:h="0.5" stArea:unit="normalized"/>
                </rdf:Description></rdf:li>"#,
            r#"<rdf:li rdf:parseType="Resource"><mwg-rs:Area rdf:parseType="Resource"><stArea:h>0.5</stArea:h>
                <stArea:unit>normalized</stArea:unit><stArea:w>0.2</stArea:w><stArea:x>0.5</stArea:x>
                <stArea:y>0.25</stArea:y></mwg-rs:Area><mwg-rs:Name>Zoë &amp; co</mwg-rs:Name>
                <mwg-rs:Type>Face</mwg-rs:Type></rdf:li>"#,
            r#"<rdf:li mwg-rs:Name=" Zoë &amp; co "><mwg-rs:Area><rdf:Description stArea:x="0.5" stArea:y="0.25"
                stArea:w="0.2" stArea:h="0.5"/></mwg-rs:Area></rdf:li>"#,
            r#"<rdf:li><rdf:Description><mwg-rs:Name>Zoë &amp; co</mwg-rs:Name><mwg-rs:Type>Face</mwg-rs:Type>
                <mwg-rs:Area><rdf:Description><stArea:x>200</stArea:x><stArea:y>50</stArea:y><stArea:w>80</stArea:w>
                <stArea:h>100</stArea:h><stArea:unit>pixel</stArea:unit></rdf:Description></mwg-rs:Area>
                </rdf:Description></rdf:li>"#,
        ];
        for (form, name) in forms.iter().zip(["lightroom", "exiftool", "digikam", "plain"]) {
            mutations::survived_by("xmp", name, list(form).as_bytes(), 200);
            let region = one(&list(form));
            assert_eq!(region.name.as_deref(), Some("Zoë & co"));
            assert_eq!((region.scheme, region.ours), (Scheme::Mwg, false));
            let Area { left, top, width, height } = region.area;
            for (found, wanted) in [left, top, width, height].into_iter().zip([0.4, 0.0, 0.2, 0.5]) {
                assert!((found - wanted).abs() < 1e-12, "{form}: {:?}", region.area);
            }
        }
        assert_eq!(read(&list("")).unwrap().applied_to, Some([400.0, 200.0]));
    }

    #[test]
    fn microsofts_regions_are_read_too() {
        let text = packet(
            r#"<MP:RegionInfo><rdf:Description><MPRI:Regions><rdf:Bag>
            <rdf:li><rdf:Description MPReg:PersonDisplayName="Ada" MPReg:Rectangle="0.25, 0.5, 0.125, 0.25"/></rdf:li>
            <rdf:li rdf:parseType="Resource"><MPReg:Rectangle>0,0,1,1</MPReg:Rectangle></rdf:li>
            <rdf:li MPReg:PersonDisplayName="no place"/>
            </rdf:Bag></MPRI:Regions></rdf:Description></MP:RegionInfo>"#,
        );
        mutations::survived_by("xmp", "microsoft", text.as_bytes(), 200);
        let faces = read(&text).unwrap().faces;
        assert_eq!(faces.len(), 2);
        assert_eq!((faces[0].name.as_deref(), faces[1].name.as_deref()), (Some("Ada"), None));
        assert_eq!(faces[0].area, Area { left: 0.25, top: 0.5, width: 0.125, height: 0.25 });
        assert!(faces.iter().all(|face| face.scheme == Scheme::Microsoft));
    }

    #[test]
    fn what_is_no_face_is_left_out() {
        for item in [
            r#"<rdf:li mwg-rs:Name="Rex" mwg-rs:Type="Pet"><mwg-rs:Area stArea:x="0.5" stArea:y="0.5" stArea:w="0.1" stArea:h="0.1"/></rdf:li>"#,
            r#"<rdf:li mwg-rs:Name="Ada" mwg-rs:Type="Face"/>"#,
            r#"<rdf:li mwg-rs:Name="Ada"><mwg-rs:Area stArea:x="0.5" stArea:y="0.5"/></rdf:li>"#,
            r#"<rdf:li mwg-rs:Name="Ada"><mwg-rs:Area stArea:x="nan" stArea:y="0.5" stArea:w="0.1" stArea:h="0.1"/></rdf:li>"#,
            r#"<rdf:li mwg-rs:Name="Ada"><mwg-rs:Area stArea:x="7" stArea:y="0.5" stArea:w="0.1" stArea:h="0.1"/></rdf:li>"#,
        ] {
            assert_eq!(read(&list(item)).unwrap().faces, [], "{item}");
        }
        let circle = r#"<rdf:li mwg-rs:Name="Ada"><mwg-rs:Area stArea:x="0.5" stArea:y="0.5" stArea:d="0.5"/></rdf:li>"#;
        let area = one(&list(circle)).area;
        assert_eq!(area, Area { left: 0.375, top: 0.25, width: 0.25, height: 0.5 });
    }

    #[test]
    fn the_part_that_is_shown_is_read() {
        let crop = |angle: &str, has: &str| {
            read(&format!(
                r#"<rdf:RDF {NAMESPACES}><rdf:Description crs:CropTop="0.1" crs:CropLeft="0.2" crs:CropBottom="0.6"
                crs:CropRight="1" crs:CropAngle="{angle}" crs:HasCrop="{has}"/></rdf:RDF>"#
            ))
            .unwrap()
            .crop
        };
        assert_eq!(crop("0", "True"), Some(Area::between([0.2, 0.1], [1.0, 0.6])));
        assert_eq!((crop("2.5", "True"), crop("0", "False")), (None, None));
    }

    #[test]
    fn what_is_no_xmp_is_refused() {
        assert!(matches!(read("no"), Err(XmpError::Xml(_))));
        assert!(matches!(read("<a/>"), Err(XmpError::NoRdf)));
        // Entities could make a small file large.
        assert!(read("<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>").is_err());
    }
}
