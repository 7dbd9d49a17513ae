//! Lists in pages, as OpenAI's API has them: `limit`, `after`, `order`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::responses::lost;
use crate::error::ApiError;
use crate::ids;
use crate::store::{Page, StoreError};
use crate::types::params::integer;

/// How much of a list, and from where.
#[derive(Debug, Default, Deserialize)]
pub struct ListQuery {
    /// So many at most; 20 where nothing is said, of files all that a page may have.
    pub limit: Option<String>,
    /// After the object with this id.
    pub after: Option<String>,
    /// asc or desc; desc where nothing is said.
    pub order: Option<String>,
    /// Of files: only those for this.
    pub purpose: Option<String>,
}

impl ListQuery {
    /// The page, of at most `most` objects.
    pub fn page(&self, most: i64) -> Result<Page, ApiError> {
        self.page_or(20, most)
    }

    /// The same, of `usual` objects where nothing is said.
    pub fn page_or(&self, usual: i64, most: i64) -> Result<Page, ApiError> {
        let limit = integer(self.limit.as_deref(), "limit")?.unwrap_or(usual);
        if !(1..=most).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("limit: wanted 1 to {most}, found {limit}")));
        }
        let ascending = match self.order.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(other) => {
                return Err(ApiError::invalid("order", format!("order: wanted \"asc\" or \"desc\", found {other:?}")));
            }
        };
        for (name, text) in [("after", &self.after), ("purpose", &self.purpose)] {
            if text.as_deref().is_some_and(|text| !text.is_empty() && !ids::is_plausible(text)) {
                return Err(ApiError::invalid(name, format!("{name}: not a word of letters, digits, _ and -")));
            }
        }
        Ok(Page { after: self.after.clone().filter(|after| !after.is_empty()), ascending, limit })
    }
}

/// A list that begins after an object that is not in it: an empty page would say that the list has ended.
pub fn unknown(after: &str) -> ApiError {
    ApiError::invalid("after", format!("after: no object with id {after:?} is in this list"))
}

/// What was found of a page. If that is nothing, the object that it begins after is looked for.
pub async fn known<T>(
    found: Vec<T>,
    page: &Page,
    cursor: impl Future<Output = Result<bool, StoreError>>,
) -> Result<Vec<T>, ApiError> {
    match &page.after {
        Some(after) if found.is_empty() && !cursor.await.map_err(lost)? => Err(unknown(after)),
        _ => Ok(found),
    }
}

/// The list object over what was found: at most `limit`, and whether there was more.
pub fn list(mut objects: Vec<Value>, limit: i64) -> Value {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = objects.len() > limit;
    objects.truncate(limit);
    let id = |object: Option<&Value>| object.map_or(Value::Null, |object| object["id"].clone());
    json!({
        "object": "list", "first_id": id(objects.first()), "last_id": id(objects.last()), "has_more": has_more,
        "data": objects,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ListQuery, list};

    #[test]
    fn a_page_tells_whether_there_is_more() {
        let objects: Vec<_> = ["a", "b", "c"].map(|id| json!({ "id": id })).into();
        let page = list(objects.clone(), 2);
        assert_eq!(page["data"].as_array().unwrap().len(), 2);
        assert_eq!((&page["first_id"], &page["last_id"], &page["has_more"]), (&json!("a"), &json!("b"), &json!(true)));
        assert_eq!(list(objects, 3)["has_more"], false);
        assert!(list(Vec::new(), 3)["first_id"].is_null());
    }

    #[test]
    fn limits_and_orders() {
        let query = |limit: Option<&str>, order: Option<&str>| {
            let [limit, order] = [limit, order].map(|text| text.map(str::to_owned));
            ListQuery { limit, order, ..ListQuery::default() }.page(100)
        };
        assert_eq!(query(None, None).unwrap().limit, 20);
        assert!(query(None, Some("asc")).unwrap().ascending);
        for limit in ["0", "-1", "101", "-9223372036854775808", "9223372036854775808", "", "1.0", "x"] {
            assert_eq!(query(Some(limit), None).unwrap_err().param(), Some("limit"));
        }
        assert_eq!(query(None, Some("up")).unwrap_err().param(), Some("order"));
        let after = |id: &str| ListQuery { after: Some(id.to_owned()), ..ListQuery::default() }.page(100);
        assert_eq!(after("file-1").unwrap().after.as_deref(), Some("file-1"));
        assert_eq!(after("").unwrap().after, None);
        assert_eq!(after("a\0").unwrap_err().param(), Some("after"));
    }
}
