//! Embedding networks of other publishers that this program knows: their addresses, the statements of their
//! publishers, and our measurements. Their weights are not part of the program.

use std::collections::BTreeMap;

use super::ModelId;

/// A network that its publisher offers.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// Its name for `models get`.
    pub name: &'static str,
    /// A short description.
    pub title: &'static str,
    /// The publisher.
    pub publisher: &'static str,
    /// Address of the file, at a fixed commit of the publisher's repository.
    pub address: &'static str,
    /// Length of the file in bytes.
    pub len: u64,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// Its licence in one line, as its publisher states it.
    pub licence: &'static str,
    /// The line that the licence asks to be kept.
    pub copyright: &'static str,
    /// Address of the licence.
    pub licence_address: &'static str,
    /// A limitation or an unknown that may matter to a user.
    pub caveat: &'static str,
    /// Identifier of its weights after import.
    pub id: ModelId,
    /// Our measurements, by keys of the metadata.
    measured: [(&'static str, &'static str); 3],
}

/// The commit of the publisher's repository from which the files are taken.
macro_rules! esp_dl {
    ($path:literal) => {
        concat!(
            "https://raw.githubusercontent.com/espressif/esp-dl/12c0616de145b704e1149c474b9a1e852e631d67/",
            $path
        )
    };
}

/// The MobileFaceNet that Espressif publishes with esp-dl.
pub const MBF: Published = Published {
    name: "mbf",
    title: "MobileFaceNet, 3.4 million parameters, 512 values per face",
    publisher: "Espressif Systems (esp-dl)",
    address: esp_dl!("models/human_face_recognition/models/p4/human_face_feat_mbf_s8_v1.espdl"),
    len: 3_522_832,
    sha256: [
        0x0c, 0xd2, 0x62, 0x9f, 0x71, 0x11, 0xb8, 0x21, 0xf4, 0x19, 0x53, 0x1d, 0x0d, 0x3f, 0xf3, 0x3d, 0x81,
        0x01, 0x83, 0x91, 0xfa, 0x57, 0x03, 0x9a, 0xcd, 0x10, 0x22, 0xa4, 0x53, 0x1c, 0xfd, 0x48,
    ],
    licence: "MIT, as Espressif Systems states it for esp-dl's human_face_recognition",
    copyright: "Copyright (c) 2021 Espressif Systems (Shanghai) Co., Ltd.",
    licence_address: esp_dl!("models/human_face_recognition/LICENSE"),
    caveat: "The publisher does not state which faces the network was trained on.",
    id: ModelId([0x65, 0x27, 0xe4, 0x6f, 0xb1, 0xc4, 0x6f, 0x00]),
    measured: [
        ("calibration", include_str!("../../models/mbf.calibration.json")),
        ("views", include_str!("../../models/mbf.views.json")),
        ("lfw", include_str!("../../models/mbf.lfw.json")),
    ],
};

impl Published {
    /// Every published network that is known.
    pub const ALL: [Published; 1] = [MBF];

    /// The one of that name.
    pub fn named(name: &str) -> Option<Published> {
        Self::ALL.into_iter().find(|model| model.name == name)
    }

    /// The one with these weights.
    pub fn of(id: ModelId) -> Option<Published> {
        Self::ALL.into_iter().find(|model| model.id == id)
    }

    /// The metadata about its terms, to be stored with its weights.
    pub fn terms(&self) -> [(String, String); 2] {
        let Self { publisher, address, licence, copyright, licence_address, caveat, .. } = self;
        let licence = format!("{licence} ({licence_address}). {copyright} {caveat}");
        [("licence".into(), licence), ("source".into(), format!("{publisher}: {address}"))]
    }

    /// Adds our measurements to the metadata of the weights `id`. Existing entries are kept.
    pub fn add_measured(id: ModelId, metadata: &mut BTreeMap<String, String>) {
        for (key, value) in Self::of(id).iter().flat_map(|model| model.measured) {
            metadata.entry(key.to_owned()).or_insert_with(|| value.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_added_and_replaces_nothing() {
        for model in Published::ALL {
            let own = ("views".to_owned(), "own".to_owned());
            let mut metadata = BTreeMap::from([own]);
            Published::add_measured(model.id, &mut metadata);
            assert_eq!(metadata["views"], "own");
            for (key, value) in model.measured {
                assert!(metadata.contains_key(key));
                serde_json::from_str::<serde_json::Value>(value).unwrap();
            }
            let mut other = BTreeMap::new();
            Published::add_measured(ModelId([1; 8]), &mut other);
            assert!(other.is_empty(), "another model");
        }
    }
}
