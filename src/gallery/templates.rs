//! Embeddings of the stills, one file per model, and the templates made of them.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pack::{self, Pack, Packed, Stamp};
use super::{
    DERIVED, GalleryError, GalleryFolder, Person, REJECTED, STILLS, Still, Viewpoint, disk, read_crop,
    read_person,
};
use crate::align::Crop;
use crate::detect::{MAX_YAW_DEG, SURE_SCORE};
use crate::embed::Embedding;
use crate::models::ModelId;

/// The most crops per call of the network.
const BATCH: usize = 32;

/// Name of the template that is the mean of all stills.
const MEAN: &str = "mean";

/// One embedding a probe is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// File name of the still it was made of, or `mean`.
    pub source: String,
    /// The embedding.
    pub embedding: Embedding,
    /// The view of the face.
    pub view: Viewpoint,
}

/// All templates of a person.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonTemplates {
    /// Display name.
    pub name: String,
    /// See [`Person::colour`].
    pub colour: Option<u32>,
    /// One per still, in the order of enrolment; then the mean of those that face the camera, if there are at
    /// least two.
    pub templates: Vec<Template>,
    /// One per counter-example: faces of others that were taken for this person.
    pub rejected: Vec<Template>,
}

impl PersonTemplates {
    /// A person of whom these stills are enrolled: their templates, and the mean of those that face the camera.
    pub fn of_stills(name: String, model: ModelId, mut stills: Vec<Template>) -> Self {
        stills.extend(mean(model, &stills));
        Self { name, colour: None, templates: stills, rejected: Vec::new() }
    }
}

/// The gallery as one model sees it.
#[derive(Debug)]
pub struct Templates {
    /// The model.
    pub model: ModelId,
    /// By name. A person without any usable still has no templates.
    pub people: Vec<PersonTemplates>,
    /// Stills that had no embedding by this model and were embedded now.
    pub re_embedded: usize,
    /// Why new embeddings could not be stored, for example in a read-only gallery. They will be made again
    /// next time.
    pub not_saved: Option<GalleryError>,
}

/// The content of `embeddings-MODEL.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    model: String,
    /// Unit vectors by [`super::Still::key`].
    embeddings: BTreeMap<String, Vec<f32>>,
}

/// Embeds the crop and the mirror image of each face, one embedding per face, in order.
type Embed<'a, E> = dyn FnMut(&[Crop]) -> Result<Vec<Embedding>, E> + 'a;

impl GalleryFolder {
    /// The templates of all people by `model`. Stored embeddings are used where they exist. `embed` (crop and
    /// mirror image -> one embedding each, in order) makes the rest, which are stored for the next time.
    /// Embeddings of other models are ignored.
    ///
    /// # Errors
    /// As [`GalleryFolder::people`]; [`GalleryError::Embed`] when `embed` fails or returns the wrong number
    /// of embeddings or those of another model; other [`GalleryError`]s when the crop of a still cannot be
    /// cut again.
    pub fn templates<E: Into<Box<dyn Error + Send + Sync>>>(
        &self,
        model: ModelId,
        mut embed: impl FnMut(&[Crop]) -> Result<Vec<Embedding>, E>,
    ) -> Result<Templates, GalleryError> {
        self.templates_packed(model, pack::PACKED_FROM, &mut embed)
    }

    /// The same; from `packed_from` templates on, they are also stored in one file.
    pub(super) fn templates_packed<E: Into<Box<dyn Error + Send + Sync>>>(
        &self,
        model: ModelId,
        packed_from: usize,
        embed: &mut Embed<'_, E>,
    ) -> Result<Templates, GalleryError> {
        let mut templates = Templates { model, people: Vec::new(), re_embedded: 0, not_saved: None };
        let path = pack::path(&self.root, model);
        let pack = Pack::open(&path, model);
        let (mut people, mut read) = (Vec::new(), 0);
        for folder in self.folders()? {
            let place = self.root.join(&folder);
            // Taken before anything is read, so that later changes are read again next time.
            let Some(stamp) = Stamp::of(&place) else { continue };
            let person = match pack.as_ref().and_then(|pack| pack.person(&folder, stamp)) {
                Some(person) => person,
                None => {
                    let Some(person) = read_person(&place)? else { continue };
                    read += 1;
                    templates.of_person(&person, embed)?
                }
            };
            people.push(Packed { folder, stamp, person });
        }
        let rows = people.iter().map(|one| one.person.templates.len() + one.person.rejected.len());
        let gone = pack.as_ref().map_or(0, Pack::len).saturating_sub(people.len() - read);
        if rows.sum::<usize>() >= packed_from && (read > 0 || gone > 0) {
            // Without the file, only the next start takes longer.
            let _ = pack::write(&path, model, &people);
        }
        people.sort_by(|a, b| a.person.name.cmp(&b.person.name));
        for pair in people.windows(2) {
            if pair[0].person.name == pair[1].person.name {
                let folders = [&pair[0], &pair[1]].map(|one| self.root.join(&one.folder));
                return Err(GalleryError::Twice { name: pair[0].person.name.clone(), folders });
            }
        }
        templates.people = people.into_iter().map(|one| one.person).collect();
        Ok(templates)
    }
}

impl Templates {
    /// The templates of a person; stills without an embedding are embedded.
    fn of_person<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        person: &Person,
        embed: &mut Embed<'_, E>,
    ) -> Result<PersonTemplates, GalleryError> {
        let model = self.model;
        let mut vectors = read_vectors(&person.folder, model)?;
        let all = person.stills.iter().map(|still| (STILLS, still));
        let all = all.chain(person.rejected.iter().map(|still| (REJECTED, still)));
        let absent: Vec<(&str, &Still)> =
            all.filter(|(_, still)| !vectors.contains_key(&still.key())).collect();
        for stills in absent.chunks(BATCH) {
            let crops: Vec<Crop> = stills
                .iter()
                .map(|(place, still)| read_crop(&person.folder, place, still))
                .collect::<Result<_, _>>()?;
            let failed = |reason: String| GalleryError::Embed { model, reason };
            let made = embed(&crops).map_err(|error| failed(error.into().to_string()))?;
            if made.len() != crops.len() || made.iter().any(|embedding| embedding.model() != model) {
                return Err(failed("it did not return one embedding of its own per crop".to_owned()));
            }
            let made = made.iter().map(|embedding| embedding.as_slice().to_vec());
            vectors.extend(stills.iter().map(|(_, still)| still.key()).zip(made));
        }
        if !absent.is_empty() {
            self.re_embedded += absent.len();
            if let Err(error) = write_vectors(person, model, &vectors) {
                self.not_saved = Some(error);
            }
        }
        // Fresh or stored, an embedding comes from the same vector by the same rounding.
        let template = |still: &Still| {
            let embedding = Embedding::new(model, vectors.get(&still.key())?.clone())?;
            Some(Template {
                source: still.file.clone(),
                embedding,
                view: Viewpoint::of(&still.face, &still.quality),
            })
        };
        let stills = person.stills.iter().filter_map(template).collect();
        let rejected = person.rejected.iter().filter_map(template).collect();
        let own = PersonTemplates::of_stills(person.name.to_string(), model, stills);
        Ok(PersonTemplates { colour: person.colour, rejected, ..own })
    }
}

/// The direction of the sum of the templates that surely face the camera; `None` if there are fewer than two,
/// or they cancel out. Views from the side would move it towards all other profiles.
fn mean(model: ModelId, templates: &[Template]) -> Option<Template> {
    let is_facing = |one: &&Template| one.view.yaw_deg <= MAX_YAW_DEG && one.view.score >= SURE_SCORE;
    let facing: Vec<&Template> = templates.iter().filter(is_facing).collect();
    let [first, _, ..] = facing[..] else { return None };
    let length = first.embedding.as_slice().len();
    let mut sum = vec![0.0f64; length];
    for template in &facing {
        sum.iter_mut().zip(template.embedding.as_slice()).for_each(|(total, &x)| *total += f64::from(x));
    }
    let embedding = Embedding::new(model, sum.into_iter().map(|x| x as f32).collect())?;
    let yaw_deg = facing.iter().map(|one| one.view.yaw_deg).sum::<f32>() / facing.len() as f32;
    let score = facing.iter().fold(0.0, |most: f32, one| most.max(one.view.score));
    Some(Template { source: MEAN.to_owned(), embedding, view: Viewpoint { yaw_deg, score } })
}

fn embeddings_path(folder: &Path, model: ModelId) -> PathBuf {
    folder.join(DERIVED).join(format!("embeddings-{model}.json"))
}

/// Stored unit vectors by still. A file that is damaged or of another model counts as absent, because it can
/// be made again.
pub(super) fn read_vectors(
    folder: &Path,
    model: ModelId,
) -> Result<BTreeMap<String, Vec<f32>>, GalleryError> {
    let bytes = disk::read(&embeddings_path(folder, model))?.unwrap_or_default();
    let stored = serde_json::from_slice::<Stored>(&bytes).ok();
    let stored = stored.filter(|stored| stored.model == model.to_string());
    let vectors = stored.map(|stored| stored.embeddings).unwrap_or_default();
    let length = vectors.values().next().map_or(0, Vec::len);
    let sound = vectors.values().all(|vector| vector.len() == length && vector.iter().any(|&x| x != 0.0));
    Ok(if sound { vectors } else { BTreeMap::new() })
}

fn write_vectors(
    person: &Person,
    model: ModelId,
    vectors: &BTreeMap<String, Vec<f32>>,
) -> Result<(), GalleryError> {
    let stills = person.stills.iter().chain(&person.rejected);
    let current = stills.filter_map(|still| vectors.get_key_value(&still.key()));
    let embeddings = current.map(|(key, vector)| (key.clone(), vector.clone())).collect();
    let stored = Stored { model: model.to_string(), embeddings };
    let path = embeddings_path(&person.folder, model);
    let text = serde_json::to_vec(&stored).map_err(|e| disk::write_error(&path, std::io::Error::other(e)))?;
    disk::create_folder(&person.folder.join(DERIVED))?;
    disk::write(&path, &text)
}
