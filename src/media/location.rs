//! The place of recording of a video, in ISO 6709.

/// A place in ISO 6709, such as `+48.1371+011.5754/`; `None` for the name of one.
pub(super) fn place(text: &str) -> Option<String> {
    let is_part = |byte: u8| byte.is_ascii_digit() || b"+-./".contains(&byte);
    (text.starts_with(['+', '-']) && text.len() < 60 && text.bytes().all(is_part)).then(|| text.to_owned())
}

/// The place at a latitude and a longitude in degrees, and a height in metres; `None` if there is no such place.
pub(super) fn place_at(latitude: f64, longitude: f64, height: Option<f64>) -> Option<String> {
    let is_place = latitude.abs() <= 90.0 && longitude.abs() <= 180.0;
    let height = height.filter(|height| height.is_finite() && *height != 0.0);
    let height = height.map_or_else(String::new, |height| format!("{height:+.3}"));
    is_place.then(|| format!("{latitude:+08.4}{longitude:+09.4}{height}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_from_the_name_of_one() {
        for text in ["+48.1371+011.5754/", "-33.8688+151.2093+058.000/"] {
            assert_eq!(place(text).as_deref(), Some(text));
        }
        assert_eq!(place_at(48.1371, 11.5754, None).as_deref(), Some("+48.1371+011.5754/"));
        assert_eq!(place_at(-3.5, -151.25, Some(58.0)).as_deref(), Some("-03.5000-151.2500+58.000/"));
        assert_eq!(place_at(f64::NAN, 0.0, None), None);
        let long = format!("+{}", "1".repeat(60));
        for text in ["", "Munich", "48.1371+011.5754/", "+48.1371 +011.5754/", &long] {
            assert_eq!(place(text), None, "{text}");
        }
    }
}
