//! The combined evidence of the views of a track.

use super::{Identification, Identifier, IdentifyError, Votes};
use crate::embed::Embedding;
use crate::gallery::Viewpoint;
use crate::track::is_distinct;

/// Maximum number of views whose votes are kept; beyond it, those of least weight are dropped.
const MOST_VOTES: usize = 256;

/// The views of a track, added one by one. Holds their weighted sum, not the views: it does not
/// grow with the track.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    sum: Option<(Embedding, Vec<f64>)>,
    weight: f64,
    views: u32,
    votes: Vec<Vote>,
    best: Option<(f32, u64)>,
    score: f32,
    embedded: f32,
    /// Turns of the embedded views, each times its weight.
    turn: f64,
}

#[derive(Debug, Clone)]
struct Vote {
    nearest: Option<String>,
    named: bool,
    weight: f32,
}

impl Evidence {
    /// Records a view of the track, embedded or not, with its weight and its detector score.
    pub fn see(&mut self, frame: u64, weight: f32, score: f32) {
        self.score = self.score.max(score);
        if self.best.is_none_or(|(most, _)| weight > most) {
            self.best = Some((weight, frame));
        }
    }

    /// Adds an embedding of the track, of a face seen as `view`.
    ///
    /// # Errors
    /// [`IdentifyError::OtherModel`] when it comes from another model than the gallery.
    pub fn add(
        &mut self,
        embedding: &Embedding,
        weight: f32,
        view: Viewpoint,
        identifier: Option<&Identifier>,
    ) -> Result<(), IdentifyError> {
        self.embedded = self.embedded.max(weight);
        // A view of weight 0 is still better than none.
        let weight = weight.max(1e-6);
        let values = embedding.as_slice();
        let (first, sum) = self.sum.get_or_insert_with(|| (embedding.clone(), vec![0.0; values.len()]));
        if first.model() != embedding.model() || sum.len() != values.len() {
            return Err(IdentifyError::MixedTemplates);
        }
        sum.iter_mut().zip(values).for_each(|(sum, &x)| *sum += f64::from(weight) * f64::from(x));
        self.weight += f64::from(weight);
        self.turn += f64::from(weight) * f64::from(view.yaw_deg);
        self.views += 1;
        if let Some(identifier) = identifier {
            let alone = identifier.identify(embedding, view)?;
            let nearest = alone.nearest.map(|candidate| candidate.name);
            self.votes.push(Vote { nearest, named: alone.name.is_some(), weight });
            if self.votes.len() > MOST_VOTES {
                let least = (0..self.votes.len())
                    .min_by(|&a, &b| self.votes[a].weight.total_cmp(&self.votes[b].weight));
                least.map(|least| self.votes.remove(least));
            }
        }
        Ok(())
    }

    /// The viewpoint of the track as a whole: its turn is the weighted mean of the views' turns, and its
    /// score is that of the surest view.
    pub fn view(&self) -> Viewpoint {
        let yaw_deg = if self.weight > 0.0 { (self.turn / self.weight) as f32 } else { 0.0 };
        Viewpoint { yaw_deg, score: self.score }
    }

    /// Views with an embedding.
    pub fn views(&self) -> u32 {
        self.views
    }

    /// The frame with the best view.
    pub fn best_frame(&self) -> u64 {
        self.best.map_or(0, |(_, frame)| frame)
    }

    /// Whether it [shows enough](is_distinct) to recognise the same person in another track.
    pub fn is_distinct(&self) -> bool {
        is_distinct(self.embedded, self.score)
    }

    /// The direction of the weighted sum of the views; `None` without one.
    pub fn template(&self) -> Option<Embedding> {
        let (first, sum) = self.sum.as_ref()?;
        Embedding::new(first.model(), sum.iter().map(|&x| x as f32).collect())
    }

    /// Identifies the track by its combined views, with the votes of the single views.
    ///
    /// # Errors
    /// [`IdentifyError::OtherModel`] when the views are of another model than the gallery.
    pub fn decide(&self, identifier: &Identifier) -> Result<(Identification, Votes), IdentifyError> {
        let Some(template) = self.template() else { return Ok((Identification::UNKNOWN, Votes::default())) };
        let identification = identifier.identify(&template, self.view())?;
        let nearest = identification.nearest.as_ref().map(|candidate| candidate.name.as_str());
        let (mut votes, mut with, mut all) = (Votes { views: self.views, ..Votes::default() }, 0.0, 0.0);
        for vote in &self.votes {
            all += vote.weight;
            if vote.nearest.is_some() && vote.nearest.as_deref() == nearest {
                with += vote.weight;
                votes.nearest += 1;
                votes.named += u32::from(vote.named);
            }
        }
        votes.share = if all > 0.0 { with / all } else { 0.0 };
        Ok((identification, votes))
    }
}
