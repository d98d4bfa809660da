//! Tokens: made and shown once, kept as a hash.

use rand::Rng;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::store::{Store, StoreError};

/// The role of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May see everything, and have pictures recognised.
    Reader,
    /// May also change people, strangers and sources.
    Administrator,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Reader, Self::Administrator];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Administrator => "administrator",
        }
    }
}

/// Tokens that were just made. They cannot be read again later.
pub struct NewTokens(Vec<(Role, String)>);

impl NewTokens {
    /// Makes new tokens for all roles; the old ones become invalid.
    ///
    /// # Errors
    /// When the store fails.
    pub fn make(store: &Store) -> Result<Self, StoreError> {
        let mut made = Vec::new();
        for role in Role::ALL {
            let mut secret = [0u8; 32];
            rand::rng().fill_bytes(&mut secret);
            let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            let token = format!("sf-{}-{hex}", role.name());
            store.set_token(role.name(), blake3::hash(token.as_bytes()).as_bytes())?;
            made.push((role, token));
        }
        Ok(Self(made))
    }

    /// The same if there are none yet.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) fn make_first(store: &Store) -> Result<Option<Self>, StoreError> {
        match Tokens::read(store)?.0.is_empty() {
            true => Self::make(store).map(Some),
            false => Ok(None),
        }
    }

    /// Each role and its token.
    pub fn all(&self) -> impl Iterator<Item = (Role, &str)> {
        self.0.iter().map(|(role, token)| (*role, token.as_str()))
    }
}

/// The hashes of tokens.
pub(super) struct Tokens(Vec<(Role, blake3::Hash)>);

impl Tokens {
    pub fn read(store: &Store) -> Result<Self, StoreError> {
        let mut all = Vec::new();
        for role in Role::ALL {
            let hash = store.token(role.name())?.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            all.extend(hash.map(|bytes| (role, blake3::Hash::from_bytes(bytes))));
        }
        Ok(Self(all))
    }

    /// The role of a token. All hashes are compared, each in constant time, as `blake3` does.
    pub fn role(&self, token: &str) -> Option<Role> {
        let hash = blake3::hash(token.as_bytes());
        self.0.iter().fold(None, |found, (role, held)| if *held == hash { Some(*role) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_worth_its_role_until_there_are_new_ones_and_is_nowhere_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let made = NewTokens::make_first(&store).unwrap().unwrap();
        assert!(NewTokens::make_first(&store).unwrap().is_none(), "shown once");
        let tokens = Tokens::read(&store).unwrap();
        for (role, token) in made.all() {
            assert_eq!(tokens.role(token), Some(role));
            assert!(token.len() > 70);
            for wrong in [&token[1..], &token[..token.len() - 1], &token.to_uppercase(), "", "reader"] {
                assert_eq!(tokens.role(wrong), None, "{wrong}");
            }
            for entry in std::fs::read_dir(folder.path()).unwrap() {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
            }
        }
        NewTokens::make(&store).unwrap();
        let tokens = Tokens::read(&store).unwrap();
        assert!(made.all().all(|(_, token)| tokens.role(token).is_none()), "the old ones are worth nothing");
        assert!(Role::Administrator > Role::Reader);
    }
}
