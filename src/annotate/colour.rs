//! One colour per person, and a readable text colour on it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// An sRGB colour.
pub type Rgb = [u8; 3];

/// OKLCH hue steps; neighbours are 15 degrees apart.
const HUES: u32 = 24;

/// OKLCH lightness and chroma of the three shades of a hue.
const SHADES: [(f32, f32); 3] = [(0.60, 0.17), (0.70, 0.16), (0.80, 0.14)];

/// The colour of strangers: a grey that no person has.
pub const UNKNOWN: Rgb = [150, 150, 150];

/// The colours of the people of a gallery by their colour numbers. A person without a number gets a
/// colour derived from the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Colours {
    numbers: BTreeMap<String, u32>,
}

impl Colours {
    /// People and the numbers of their colours.
    pub fn new(numbers: impl IntoIterator<Item = (String, u32)>) -> Self {
        Self { numbers: numbers.into_iter().collect() }
    }

    /// The colour of a person; `None` is a stranger.
    pub fn of(&self, name: Option<&str>) -> Rgb {
        let Some(name) = name else { return UNKNOWN };
        self.numbers.get(name).map_or_else(|| of_name(name), |&number| numbered(number))
    }

    /// The same in CSS notation, for example `#9a3fc0`.
    pub fn css(&self, name: Option<&str>) -> String {
        let [r, g, b] = self.of(name);
        format!("#{r:02x}{g:02x}{b:02x}")
    }
}

/// The colour with that number: each differs as far as possible from those before it and from the grey of
/// strangers. After 72 the colours repeat.
fn numbered(number: u32) -> Rgb {
    /// Hue, shade and OKLAB coordinates of every colour, the farthest from those before it first.
    static COLOURS: LazyLock<Vec<Rgb>> = LazyLock::new(|| {
        let places = (0..HUES).flat_map(|hue| SHADES.map(|shade| (hue_deg(hue), shade)));
        let place = |(hue_deg, (lightness, chroma)): (f32, (f32, f32))| {
            let (sin, cos) = hue_deg.to_radians().sin_cos();
            ([lightness, chroma * cos, chroma * sin], from_oklch(lightness, chroma, hue_deg))
        };
        let distance = |a: [f32; 3], b: [f32; 3]| (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f32>();
        // The grey of strangers has the lightness 0.67.
        let mut left: Vec<(f32, [f32; 3], Rgb)> =
            places.map(place).map(|(at, colour)| (distance(at, [0.67, 0.0, 0.0]), at, colour)).collect();
        let mut colours = Vec::with_capacity(left.len());
        while let Some(next) = (0..left.len()).reduce(|a, b| if left[b].0 > left[a].0 { b } else { a }) {
            let (_, at, colour) = left.remove(next);
            left.iter_mut().for_each(|one| one.0 = one.0.min(distance(one.1, at)));
            colours.push(colour);
        }
        colours
    });
    COLOURS[number as usize % COLOURS.len()]
}

fn hue_deg(hue: u32) -> f32 {
    hue as f32 * (360.0 / HUES as f32)
}

/// The colour of a person who has no number: a hash of the name picks one of 72 colours, so that
/// it is the same in every video and with every gallery.
fn of_name(name: &str) -> Rgb {
    let hash = blake3::hash(name.as_bytes());
    let [a, b, c, d, e, ..] = *hash.as_bytes();
    let hue = u32::from_le_bytes([a, b, c, d]) % HUES;
    let (lightness, chroma) = SHADES[usize::from(e) % SHADES.len()];
    from_oklch(lightness, chroma, hue_deg(hue))
}

/// Black or white, whichever stands out more on `background`.
pub fn text_on(background: Rgb) -> Rgb {
    let (black, white) = ([0; 3], [255; 3]);
    if contrast(background, black) >= contrast(background, white) { black } else { white }
}

/// WCAG 2 contrast ratio, 1 to 21.
pub fn contrast(a: Rgb, b: Rgb) -> f32 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

/// WCAG 2 relative luminance, 0 to 1.
fn luminance(colour: Rgb) -> f32 {
    let [r, g, b] = colour.map(|c| {
        let c = f32::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

/// sRGB of an OKLCH colour (Ottosson, "A perceptual color space for image processing", 2020);
/// the chroma is lowered until the colour exists in sRGB.
fn from_oklch(lightness: f32, chroma: f32, hue_deg: f32) -> Rgb {
    let (sin, cos) = hue_deg.to_radians().sin_cos();
    let mut chroma = chroma;
    loop {
        let (a, b) = (chroma * cos, chroma * sin);
        let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
        let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
        let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
        let linear = [
            4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
            -1.268_438 * l + 2.609_757_4 * m - 0.341_319_4 * s,
            -0.004_196_086 * l - 0.703_418_6 * m + 1.707_614_7 * s,
        ];
        if chroma <= 0.0 || linear.iter().all(|c| (0.0..=1.0).contains(c)) {
            return linear.map(|c| {
                let c = c.clamp(0.0, 1.0);
                let encoded = if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
                (encoded * 255.0).round() as u8
            });
        }
        chroma -= 0.005;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn text_is_readable_on_every_colour() {
        for background in (0..2000).map(|i| of_name(&i.to_string())).chain([UNKNOWN]) {
            let ratio = contrast(background, text_on(background));
            assert!(ratio >= 4.5, "{background:?}: {ratio}");
        }
    }

    #[test]
    fn colours_are_stable_many_and_never_the_grey_of_strangers() {
        assert_eq!(of_name("Ada Lovelace"), of_name("Ada Lovelace"));
        let colours: BTreeSet<Rgb> = (0..5000).map(|i| of_name(&i.to_string())).collect();
        assert_eq!(colours.len(), 72);
        for [r, g, b] in colours {
            let spread = r.max(g).max(b) - r.min(g).min(b);
            assert!(spread > 60, "{:?} is nearly grey", [r, g, b]);
        }
    }

    #[test]
    fn people_of_one_gallery_differ_as_far_as_possible() {
        let all: BTreeSet<Rgb> = (0..72).map(numbered).collect();
        assert_eq!(all.len(), 72);
        assert_eq!(numbered(72), numbered(0));
        let apart = |a: Rgb, b: Rgb| -> u32 { (0..3).map(|i| u32::from(a[i].abs_diff(b[i]))).sum() };
        for a in 0..8 {
            for b in 0..a {
                let (one, other) = (numbered(a), numbered(b));
                assert!(apart(one, other) > 80, "{a} {one:?} and {b} {other:?}");
            }
        }
        let colours = Colours::new([("Ada".into(), 0), ("Chloé".into(), 1)]);
        assert_eq!(colours.of(Some("Ada")), numbered(0));
        assert_eq!(colours.of(Some("Bo")), of_name("Bo"));
        assert_eq!(colours.css(None), "#969696");
    }

    #[test]
    fn oklch_agrees_with_published_values() {
        // oklch(0.62796 0.25768 29.23) is pure sRGB red; lightness 1 is white.
        let red = from_oklch(0.62796, 0.25768, 29.23);
        assert!(red[0] >= 250 && red[1] <= 20 && red[2] <= 20, "{red:?}");
        assert_eq!(from_oklch(1.0, 0.0, 0.0).map(|c| c >= 254), [true; 3]);
    }
}
