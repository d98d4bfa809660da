use super::*;
use crate::media::{Colorimetry, Matrix};

const BACKGROUND: [u8; 3] = [90, 90, 90];

fn bbox(x1: f32, y1: f32, x2: f32, y2: f32) -> BBox {
    BBox { x1, y1, x2, y2 }
}

fn named(name: &str, bbox: BBox) -> Label {
    Label { name: Some(name.into()), angle_deg: Some(43.2), score: Some(0.98), ..Label::unknown(bbox) }
}

fn still(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width, height, image::Rgb(BACKGROUND))
}

fn picture(width: usize, height: usize, colorimetry: Colorimetry) -> Picture {
    let [y, u, v] = colorimetry.yuv(BACKGROUND.map(f32::from)).map(|x| x.round() as u8);
    let mut data = vec![y; width * height];
    let chroma = width.div_ceil(2) * height.div_ceil(2);
    data.extend(vec![u; chroma]);
    data.extend(vec![v; chroma]);
    Picture::from_i420(data, width, height, colorimetry).unwrap()
}

fn annotator(style: &str) -> Annotator {
    Annotator::new(style.parse().unwrap()).unwrap()
}

fn close(a: image::Rgb<u8>, b: Rgb, tolerance: u8) -> bool {
    a.0.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= tolerance)
}

/// The number of pixels that are not background.
fn ink(image: &RgbImage) -> usize {
    image.pixels().filter(|p| p.0 != BACKGROUND).count()
}

#[test]
fn a_box_is_drawn_on_its_edges_and_leaves_the_face_alone_at_every_size() {
    for (width, height) in [(320, 240), (641, 359), (3840, 2160)] {
        let mut image = still(width, height);
        let (w, h) = (width as f32, height as f32);
        let face = bbox(w * 0.4, h * 0.4, w * 0.6, h * 0.7);
        annotator("text=none").draw_rgb(&mut image, &[named("Ada", face)]);
        let colour = Colours::default().of(Some("Ada"));
        let [cx, cy] = face.centre();
        for [x, y] in [[face.x1, cy], [face.x2, cy], [cx, face.y1], [cx, face.y2]] {
            let near = (-1..=1).any(|d| {
                let at = |v: f32, along: bool| (v.round() as i32 + if along { d } else { 0 }) as u32;
                let sideways = y == cy;
                close(*image.get_pixel(at(x, sideways), at(y, !sideways)), colour, 2)
            });
            assert!(near, "{width}x{height}: no edge at {x}, {y}");
        }
        let margin = 0.004 * h + 4.0;
        for (x, y, pixel) in image.enumerate_pixels() {
            let (x, y) = (x as f32, y as f32);
            let inside =
                x > face.x1 + margin && x < face.x2 - margin && y > face.y1 + margin && y < face.y2 - margin;
            let outside =
                x < face.x1 - margin || x > face.x2 + margin || y < face.y1 - margin || y > face.y2 + margin;
            assert!(!(inside || outside) || pixel.0 == BACKGROUND, "{width}x{height}: ink at {x}, {y}");
        }
    }
}

#[test]
fn boxes_that_are_nowhere_leave_the_picture_as_it_was() {
    let nan = f32::NAN;
    let labels: Vec<Label> = [
        bbox(nan, 10.0, 50.0, 50.0),
        bbox(10.0, 10.0, f32::INFINITY, 50.0),
        bbox(nan, nan, nan, nan),
        bbox(50.0, 50.0, 10.0, 10.0),
        bbox(10.0, 10.0, 10.0, 50.0),
        bbox(-90.0, 10.0, -10.0, 50.0),
        bbox(10.0, 1e9, 50.0, 2e9),
        bbox(1000.0, 10.0, 1100.0, 50.0),
    ]
    .map(|b| named("Nobody", b))
    .into();
    let annotator = annotator("text=name+angle,landmarks");
    let colorimetry = Colorimetry::default();
    for (width, height) in [(320, 240), (641, 359), (1, 1), (3, 2)] {
        let mut drawn = picture(width, height, colorimetry);
        annotator.draw(&mut drawn, &labels);
        assert!(drawn == picture(width, height, colorimetry), "{width}x{height}");
    }
}

#[test]
fn boxes_partly_or_wholly_around_the_picture_are_drawn_as_far_as_they_are_inside() {
    let annotator = annotator("text=name+angle+score,landmarks");
    for (width, height) in [(320, 240), (641, 359), (3840, 2160), (7, 5), (1, 1), (2000, 3)] {
        let (w, h) = (width as f32, height as f32);
        for face in [
            bbox(-20.0, -20.0, w / 2.0, h / 2.0),
            bbox(w / 2.0, h / 2.0, w + 30.0, h + 30.0),
            bbox(-1e6, -1e6, 1e6, 1e6),
            bbox(-1e30, h / 4.0, w / 2.0, 1e30),
            bbox(0.0, 0.0, w, h),
            bbox(w / 2.0, h / 2.0, w / 2.0 + 0.1, h / 2.0 + 0.1),
        ] {
            let mut label = named("Zoë Müller-Łukaszewicz", face);
            label.landmarks = Some([[w / 2.0, h / 2.0], [-5.0, 3.0], [f32::NAN, 1.0], [1e30, 0.0], [w, h]]);
            let mut drawn = picture(width, height, Colorimetry::default());
            annotator.draw(&mut drawn, &[label]);
            assert!(drawn != picture(width, height, Colorimetry::default()), "{width}x{height} {face:?}");
        }
    }
}

/// The bounding box of a plate: the pixels in the person's colour or in its text colour.
fn plate_extent(image: &RgbImage, name: &str) -> Option<(u32, u32, u32, u32)> {
    let colour = Colours::default().of(Some(name));
    let plate: Vec<(u32, u32)> =
        image.enumerate_pixels().filter(|(_, _, p)| close(**p, colour, 0)).map(|(x, y, _)| (x, y)).collect();
    let xs = plate.iter().map(|p| p.0);
    let ys = plate.iter().map(|p| p.1);
    Some((xs.clone().min()?, ys.clone().min()?, xs.max()?, ys.max()?))
}

#[test]
fn a_plate_stays_inside_and_whole_wherever_the_face_is() {
    let annotator = annotator("width=0");
    for (width, height) in [(320u32, 240u32), (641, 359), (3840, 2160)] {
        let (w, h) = (width as f32, height as f32);
        let size = h / 5.0;
        let mut extents = Vec::new();
        for (cx, cy) in
            [(0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.0), (0.5, 1.0), (0.0, 0.5)]
        {
            let (cx, cy) = (cx * w, cy * h);
            let face = bbox(cx - size, cy - size, cx + size, cy + size);
            let mut image = still(width, height);
            annotator.draw_rgb(&mut image, &[named("Grace Hopper", face)]);
            let (x1, y1, x2, y2) = plate_extent(&image, "Grace Hopper").unwrap();
            extents.push((x2 - x1, y2 - y1, ink(&image)));
        }
        assert!(extents.iter().all(|e| *e == extents[0]), "{width}x{height}: {extents:?}");
        assert!(extents[0].1 as f32 >= 0.03 * h, "{width}x{height}: the plate is too low to read");
    }
}

#[test]
fn a_plate_moves_rather_than_hide_a_neighbour() {
    let mut image = still(640, 360);
    // The usual place, above the lower face, is taken by the upper one.
    let (upper, lower) = (bbox(200.0, 60.0, 300.0, 180.0), bbox(200.0, 185.0, 300.0, 300.0));
    annotator("width=0").draw_rgb(&mut image, &[named("Upper", upper), named("Lower", lower)]);
    for face in [upper, lower] {
        for y in face.y1 as u32 + 1..face.y2 as u32 - 1 {
            for x in face.x1 as u32 + 1..face.x2 as u32 - 1 {
                assert_eq!(image.get_pixel(x, y).0, BACKGROUND, "{x}, {y} of a face is hidden");
            }
        }
    }
    assert!(plate_extent(&image, "Upper").is_some() && plate_extent(&image, "Lower").is_some());
}

#[test]
fn a_crowd_of_plates_does_not_overlap_while_there_is_room() {
    let faces = [(100.0, 100.0), (112.0, 104.0), (124.0, 108.0)];
    let annotator = annotator("width=0");
    let labels: Vec<Label> =
        faces.iter().map(|&(x, y)| named("Ann Lee", bbox(x, y, x + 10.0, y + 12.0))).collect();
    let mut alone = still(640, 360);
    annotator.draw_rgb(&mut alone, &labels[..1]);
    let mut together = still(640, 360);
    annotator.draw_rgb(&mut together, &labels);
    assert_eq!(ink(&together), 3 * ink(&alone));
}

#[test]
fn pictures_and_stills_get_the_same_colours_in_every_colorimetry() {
    let face = bbox(200.0, 120.0, 420.0, 300.0);
    let label = named("Ada", face);
    let annotator = annotator("width=8");
    let mut image = still(641, 359);
    annotator.draw_rgb(&mut image, std::slice::from_ref(&label));
    for matrix in [Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020] {
        for full_range in [false, true] {
            let mut drawn = picture(641, 359, Colorimetry { matrix, full_range });
            annotator.draw(&mut drawn, std::slice::from_ref(&label));
            let rgb = drawn.to_rgb();
            let mut compared = 0;
            for y in 1..358 {
                for x in 1..640 {
                    // Chroma is shared by four pixels: compare where the surroundings are flat.
                    let here = *image.get_pixel(x, y);
                    let flat =
                        (y - 1..=y + 1).all(|y| (x - 1..=x + 1).all(|x| *image.get_pixel(x, y) == here));
                    if flat {
                        assert!(close(*rgb.get_pixel(x, y), here.0, 4), "{matrix:?} {x}, {y}");
                        compared += usize::from(here.0 != BACKGROUND);
                    }
                }
            }
            assert!(compared > 1000, "only {compared} pixels of ink are flat");
        }
    }
}

#[test]
fn strangers_are_grey_and_can_be_left_without_text_or_out() {
    let label = [Label::unknown(bbox(100.0, 100.0, 160.0, 180.0))];
    let mut text = still(320, 240);
    annotator("unknown=text").draw_rgb(&mut text, &label);
    assert!(text.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]), "only greys");
    let mut bare = still(320, 240);
    annotator("unknown=box").draw_rgb(&mut bare, &label);
    let mut hidden = still(320, 240);
    annotator("unknown=hide").draw_rgb(&mut hidden, &label);
    assert!(ink(&text) > ink(&bare) && ink(&bare) > 0 && ink(&hidden) == 0);
}

#[test]
fn a_name_too_long_for_the_picture_is_cut_and_the_angle_stays() {
    let annotator = annotator("text=name+angle");
    let short =
        annotator.line(&named("Wolfeschlegelsteinhausen", bbox(0.0, 0.0, 9.0, 9.0)), 150.0, 12.0).unwrap();
    assert!(short.width_px <= 150.0 && short.width_px > 130.0, "{}", short.width_px);
    let endless = "W".repeat(100_000);
    let line = annotator.line(&named(&endless, bbox(0.0, 0.0, 9.0, 9.0)), 3000.0, 12.0).unwrap();
    assert!(line.width_px <= 3000.0);
    let mut image = still(64, 48);
    annotator.draw_rgb(&mut image, &[named(&endless, bbox(10.0, 20.0, 30.0, 40.0))]);
    assert!(ink(&image) > 0);
}

#[test]
fn the_same_labels_give_the_same_pixels_from_any_thread() {
    let annotator = annotator("text=name+angle,landmarks");
    let labels =
        [named("Ελένη", bbox(50.3, 80.7, 120.1, 150.9)), named("Юлия", bbox(150.0, 80.0, 220.0, 170.0))];
    let draw = || {
        let mut drawn = picture(320, 240, Colorimetry::default());
        annotator.draw(&mut drawn, &labels);
        drawn
    };
    let expected = draw();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
        assert!(threads.into_iter().all(|t| t.join().unwrap() == expected));
    });
}

#[test]
fn a_stranger_keeps_the_number_in_the_picture() {
    let face = bbox(100.0, 100.0, 180.0, 200.0);
    let drawn = |stranger| {
        let mut image = still(320, 240);
        annotator("text=name").draw_rgb(&mut image, &[Label { stranger, ..Label::unknown(face) }]);
        image
    };
    assert_ne!(drawn(Some(1)), drawn(Some(2)));
    assert!(ink(&drawn(Some(1))) > ink(&drawn(None)), "the plate is wider");
}
