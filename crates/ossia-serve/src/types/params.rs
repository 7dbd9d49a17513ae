//! What is read of a request besides its body: ids in its path, its query. In the place of axum's own, whose refusals are
//! plain text in the words of a library.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::types::responses::check_includes;

/// What stands in the path in the places of a route's names: one text, or a pair. A path with bytes that are no text, or
/// control characters, which no database need be asked for, leads nowhere.
pub struct Path<T>(pub T);

/// Texts of a path.
pub trait Segments {
    /// All of them.
    fn all(&self) -> impl Iterator<Item = &str>;
}

impl Segments for String {
    fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.as_str())
    }
}

impl Segments for (String, String) {
    fn all(&self) -> impl Iterator<Item = &str> {
        [self.0.as_str(), self.1.as_str()].into_iter()
    }
}

impl<T: DeserializeOwned + Segments + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await.map_err(|_| ApiError::NoRoute)?;
        let is_plain = path.0.all().all(|text| !text.contains(char::is_control));
        is_plain.then_some(Self(path.0)).ok_or(ApiError::NoRoute)
    }
}

/// The query. Its fields are texts, which their readers turn into what they want, so that an error can name them; what else
/// can be wrong is that one is there twice.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let problem = "The URL's query has a parameter that is there more than once.";
        query.map(|query| Self(query.0)).map_err(|_| ApiError::Invalid { param: None, problem: problem.into() })
    }
}

/// The query's `include`, which clients write as a list in several ways, with each word checked.
pub struct Includes;

impl<S: Send + Sync> FromRequestParts<S> for Includes {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        let is_one = |name: &str| {
            name.strip_prefix("include")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('[') && rest.ends_with(']'))
        };
        check_includes(pairs.iter().filter(|(name, _)| is_one(name)).map(|(_, word)| word.as_str()))?;
        Ok(Self)
    }
}

/// A parameter that is true or false.
pub fn flag(text: Option<&str>, name: &str) -> Result<Option<bool>, ApiError> {
    match text {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(other) => Err(ApiError::invalid(name, format!("{name}: wanted true or false, found {other:?}"))),
    }
}

/// A parameter that is a whole number.
pub fn integer<N: std::str::FromStr>(text: Option<&str>, name: &str) -> Result<Option<N>, ApiError> {
    let wrong = |text: &str| ApiError::invalid(name, format!("{name}: wanted a whole number, found {text:?}"));
    text.map(|text| text.parse().map_err(|_| wrong(text))).transpose()
}

#[cfg(test)]
mod tests {
    use super::{flag, integer};

    #[test]
    fn wrong_parameters_are_named() {
        assert_eq!(integer::<u64>(Some("18446744073709551615"), "after").unwrap(), Some(u64::MAX));
        for wrong in ["", "-1", "1.0", "1e3", "18446744073709551616", "NaN", " 1"] {
            let error = integer::<u64>(Some(wrong), "starting_after").unwrap_err();
            assert_eq!((error.param(), error.status().as_u16()), (Some("starting_after"), 400), "{wrong}");
        }
        assert_eq!(flag(Some("true"), "stream").unwrap(), Some(true));
        assert_eq!(flag(None, "stream").unwrap(), None);
        for wrong in ["", "TRUE", "1", "yes"] {
            assert_eq!(flag(Some(wrong), "stream").unwrap_err().param(), Some("stream"), "{wrong}");
        }
    }
}
