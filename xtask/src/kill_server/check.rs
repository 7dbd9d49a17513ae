//! Whether a server that was started again has what the one before it had acknowledged.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ledger::{Gone, KeptBatch, KeptFile, KeptResponse, Ledger};
use crate::client::{Answer, Connection, request};
use crate::json::Json;
use crate::served::Served;

struct Asker<'s> {
    served: &'s Served,
    key: &'s str,
}

impl Asker<'_> {
    fn get(&self, target: &str) -> Result<Answer, String> {
        let mut connection = Connection::open(self.served.at).map_err(|error| error.to_string())?;
        let answer = connection.ask(&request("GET", target, self.served.at, self.key, None));
        answer.map_err(|none| format!("GET {target}: {none}"))
    }

    fn json(&self, target: &str) -> Result<Json, String> {
        let answer = self.get(target)?;
        let json = Json::read(&answer.body).filter(|_| answer.status == 200);
        json.ok_or_else(|| format!("GET {target}: {}: {}", answer.status, answer.text()))
    }

    fn file(&self, file: &KeptFile) -> Result<(), String> {
        let answer = self.get(&format!("/v1/files/{}/content", file.id))?;
        let is_there = answer.status == 200;
        match file.gone {
            Gone::Yes if is_there => Err(format!("{} was deleted and is there", file.id)),
            Gone::No if !is_there => Err(format!("{} is gone: {} {}", file.id, answer.status, answer.text())),
            _ if is_there && answer.body != file.content => Err(format!("{} has another content", file.id)),
            _ => Ok(()),
        }
    }

    fn response(&self, response: &KeptResponse) -> Result<(), String> {
        let found = self.json(&format!("/v1/responses/{}", response.id))?;
        match &response.body {
            Some(body) if *body != found => Err(format!("{} is {found:?}, was {body:?}", response.id)),
            Some(_) => Ok(()),
            None if ["completed", "incomplete", "failed"].contains(&found.text("status").unwrap_or_default()) => Ok(()),
            // One in the background may have begun with this server's client, and goes on.
            None => Err(format!("{} has no end: {found:?}", response.id)),
        }
    }

    /// Every line of a batch has one result.
    fn batch(&self, kept: &KeptBatch, batch: &Json) -> Result<usize, String> {
        let mut found = Vec::new();
        for field in ["output_file_id", "error_file_id"] {
            let Some(file) = batch.text(field) else { continue };
            let answer = self.get(&format!("/v1/files/{file}/content"))?;
            for line in answer.text().lines() {
                let result =
                    Json::read(line.as_bytes()).ok_or_else(|| format!("{file}: a line is not JSON: {line}"))?;
                found.push(result.text("custom_id").unwrap_or_default().to_owned());
            }
        }
        let distinct: HashSet<&String> = found.iter().collect();
        let wanted: HashSet<&String> = kept.custom_ids.iter().collect();
        let counts = batch.get("request_counts");
        let total = counts.and_then(|counts| counts.number("total")).unwrap_or(0);
        if distinct != wanted || found.len() != wanted.len() || total != wanted.len() as u64 {
            return Err(format!(
                "batch {}: {} results of {} lines, {} of them different; it says {total}",
                kept.id,
                found.len(),
                wanted.len(),
                distinct.len()
            ));
        }
        Ok(found.len())
    }
}

/// Looks at what was acknowledged since the kill number `since`.
pub fn recent(served: &Served, key: &str, ledger: &Mutex<Ledger>, since: u64) -> Result<(), String> {
    let asker = Asker { served, key };
    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    for file in ledger.files.iter().filter(|file| file.kill >= since) {
        asker.file(file)?;
    }
    for response in ledger.responses.iter().filter(|response| response.kill >= since) {
        asker.response(response)?;
    }
    for conversation in ledger.conversations.iter_mut().filter(|conversation| conversation.kill >= since) {
        let found = texts(&asker.json(&items_target(&conversation.id))?);
        conversation.take(found)?;
    }
    for batch in &ledger.batches {
        asker.json(&format!("/v1/batches/{}", batch.id))?;
    }
    Ok(())
}

/// Waits until all batches are done, and counts their results.
pub fn batches(served: &Served, key: &str, ledger: &Mutex<Ledger>, patience: Duration) -> Result<usize, String> {
    let asker = Asker { served, key };
    let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let end = Instant::now() + patience;
    let mut num_lines = 0;
    for kept in &ledger.batches {
        let batch = loop {
            let batch = asker.json(&format!("/v1/batches/{}", kept.id))?;
            match batch.text("status").unwrap_or_default() {
                "completed" => break batch,
                "validating" | "in_progress" | "finalizing" if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                other => return Err(format!("batch {} is {other}: {batch:?}", kept.id)),
            }
        };
        num_lines += asker.batch(kept, &batch)?;
    }
    Ok(num_lines)
}

/// Where all items of a conversation are listed.
pub fn items_target(id: &str) -> String {
    format!("/v1/conversations/{id}/items?order=asc&limit=100")
}

/// A user's items by their texts, the model's by their ids.
pub fn texts(list: &Json) -> Vec<String> {
    let text = |item: &Json| {
        let own = item
            .list("content")
            .first()
            .and_then(|part| part.text("text"))
            .filter(|_| item.text("role") == Some("user"));
        own.or_else(|| item.text("id")).unwrap_or_default().to_owned()
    };
    list.list("data").iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::texts;
    use crate::json::Json;

    #[test]
    fn items_are_named_by_what_was_sent_or_by_their_ids() {
        let list = br#"{"data":[{"id":"msg_1","role":"user","content":[{"text":"k1-0"}]},{"id":"rs_1","content":[{"text":"hm"}]},
            {"id":"msg_2","role":"assistant","content":[{"text":"a"}]}]}"#;
        assert_eq!(texts(&Json::read(list).unwrap()), ["k1-0", "rs_1", "msg_2"]);
    }
}
