//! The store against SQLite in a folder of its own; against PostgreSQL too where OSSIA_TEST_POSTGRES has a URL.

use serde_json::json;

use super::*;

pub(super) async fn sqlite(folder: &tempfile::TempDir) -> Store {
    Store::open_sqlite(&folder.path().join("a name with spaces ? #.db")).await.unwrap()
}

/// Runs a test on every database there is. PostgreSQL's tables are shared by all tests: ids must differ.
pub(super) async fn on_each<F: AsyncFn(&Store)>(test: F) {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder).await;
    test(&store).await;
    store.close().await;
    if let Ok(url) = std::env::var("OSSIA_TEST_POSTGRES") {
        let store = Store::open_url(&url).await.unwrap();
        test(&store).await;
        store.close().await;
    }
}

pub(super) fn id(prefix: &str) -> String {
    crate::ids::new(prefix).unwrap()
}

fn response(id: &str, previous: Option<&str>, created_at: i64) -> NewResponse {
    NewResponse {
        id: id.to_owned(),
        created_at,
        status: "in_progress",
        previous_id: previous.map(str::to_owned),
        conversation_id: None,
        background: false,
        date: "2026-11-25".to_owned(),
        input: format!("[\"to {id}\"]"),
        body: json!({ "id": id }).to_string(),
    }
}

fn finished(body: &str) -> Finished {
    Finished { status: "completed", body: body.to_owned(), events: None, append: None }
}

#[tokio::test]
async fn a_response_from_beginning_to_end() {
    on_each(async |store| {
        let new = response(&id("resp"), None, 1 << 40);
        store.insert_response("ada", &new).await.unwrap();
        assert_eq!(store.response("ada", &new.id).await.unwrap().unwrap().status, "in_progress");
        let end = Finished { events: Some("{}\n".into()), ..finished("{\"done\":true}") };
        store.finish_response("ada", &new.id, end).await.unwrap();
        let kept = store.response("ada", &new.id).await.unwrap().unwrap();
        assert_eq!((kept.status.as_str(), kept.body.as_str()), ("completed", "{\"done\":true}"));
        assert_eq!((kept.events.as_deref(), kept.input), (Some("{}\n"), new.input.clone()));
        assert!(store.delete_response("ada", &new.id).await.unwrap());
        assert!(!store.delete_response("ada", &new.id).await.unwrap());
        assert!(store.response("ada", &new.id).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn nobody_reads_changes_or_deletes_what_is_anothers() {
    on_each(async |store| {
        let new = response(&id("resp"), None, 1 << 40);
        store.insert_response("ada", &new).await.unwrap();
        let conversation =
            StoredConversation { id: id("conv"), created_at: 1, date: "2026-11-25".into(), metadata: "{}".into() };
        let item = StoredItem { id: "msg_1".into(), body: "{}".into() };
        store.insert_conversation("ada", &conversation, vec![item.clone()]).await.unwrap();
        let conv = &conversation.id;

        assert!(store.response("eve", &new.id).await.unwrap().is_none());
        assert!(store.chain("eve", &new.id).await.unwrap().is_empty());
        assert!(!store.delete_response("eve", &new.id).await.unwrap());
        let steal =
            Append { conversation_id: conv.clone(), items: vec![StoredItem { id: "x".into(), body: "{}".into() }] };
        let end = Finished { append: Some(steal.clone()), ..finished("eve's") };
        store.finish_response("eve", &new.id, end).await.unwrap();
        store.append_items("eve", steal).await.unwrap();
        assert!(store.conversation("eve", conv).await.unwrap().is_none());
        assert!(store.all_items("eve", conv).await.unwrap().is_empty());
        assert!(store.item("eve", conv, "msg_1").await.unwrap().is_none());
        assert!(!store.delete_item("eve", conv, "msg_1").await.unwrap());
        assert!(!store.delete_conversation("eve", conv).await.unwrap());
        store.set_metadata("eve", conv, "{\"by\":\"eve\"}").await.unwrap();

        assert_eq!(store.response("ada", &new.id).await.unwrap().unwrap().body, new.body);
        assert_eq!(store.all_items("ada", conv).await.unwrap(), [item]);
        assert_eq!(store.conversation("ada", conv).await.unwrap().unwrap(), conversation);
    })
    .await;
}

#[tokio::test]
async fn a_chain_is_read_oldest_first_and_tells_where_it_breaks() {
    on_each(async |store| {
        let ids = [id("resp"), id("resp"), id("resp")];
        store.insert_response("ada", &response(&ids[0], None, 1 << 40)).await.unwrap();
        store.insert_response("ada", &response(&ids[1], Some(&ids[0]), 1 << 40)).await.unwrap();
        store.insert_response("ada", &response(&ids[2], Some(&ids[1]), 1 << 40)).await.unwrap();
        let chain = store.chain("ada", &ids[2]).await.unwrap();
        let bytes: usize = chain.iter().map(|turn| turn.input.len() + turn.body.len()).sum();
        assert_eq!(store.num_chain_bytes("ada", &ids[2]).await.unwrap(), bytes as i64);
        assert_eq!(store.num_chain_bytes("eve", &ids[2]).await.unwrap(), 0);
        let inputs: Vec<String> = chain.into_iter().map(|turn| turn.input).collect();
        assert_eq!(inputs, ids.each_ref().map(|id| format!("[\"to {id}\"]")));
        store.delete_response("ada", &ids[0]).await.unwrap();
        let chain = store.chain("ada", &ids[2]).await.unwrap();
        assert_eq!((chain.len(), chain[0].previous_id.as_deref()), (2, Some(ids[0].as_str())));
    })
    .await;
}

#[tokio::test]
async fn a_conversation_keeps_its_order_and_takes_an_item_once() {
    on_each(async |store| {
        let conversation =
            StoredConversation { id: id("conv"), created_at: 1, date: "2026-11-25".into(), metadata: "{}".into() };
        let conv = conversation.id.clone();
        let items = |range: std::ops::Range<usize>| -> Vec<StoredItem> {
            range.map(|n| StoredItem { id: format!("msg_{n}"), body: format!("{n}") }).collect()
        };
        store.insert_conversation("ada", &conversation, items(0..3)).await.unwrap();
        store.append_items("ada", Append { conversation_id: conv.clone(), items: items(1..6) }).await.unwrap();
        assert_eq!(store.all_items("ada", &conv).await.unwrap(), items(0..6));

        let page = Page { after: None, ascending: false, limit: 2 };
        let ids = |items: Vec<StoredItem>| items.into_iter().map(|item| item.body).collect::<String>();
        assert_eq!(ids(store.list_items("ada", &conv, &page).await.unwrap()), "543");
        let page = Page { after: Some("msg_4".into()), ..page };
        assert_eq!(ids(store.list_items("ada", &conv, &page).await.unwrap()), "321");
        let page = Page { ascending: true, limit: 10, ..page };
        assert_eq!(ids(store.list_items("ada", &conv, &page).await.unwrap()), "5");
        let page = Page { after: Some("msg_99".into()), ..page };
        assert_eq!(ids(store.list_items("ada", &conv, &page).await.unwrap()), "");

        assert!(store.delete_item("ada", &conv, "msg_2").await.unwrap());
        assert!(store.delete_conversation("ada", &conv).await.unwrap());
        assert!(store.all_items("ada", &conv).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_finished_response_goes_into_its_conversation_unless_it_was_deleted() {
    on_each(async |store| {
        let conversation =
            StoredConversation { id: id("conv"), created_at: 1, date: "2026-11-25".into(), metadata: "{}".into() };
        store.insert_conversation("ada", &conversation, Vec::new()).await.unwrap();
        for (deleted, item) in [(false, "msg_kept"), (true, "msg_lost")] {
            let new = response(&id("resp"), None, 1 << 40);
            store.insert_response("ada", &new).await.unwrap();
            if deleted {
                store.delete_response("ada", &new.id).await.unwrap();
            }
            let items = vec![StoredItem { id: item.into(), body: "{}".into() }];
            let append = Some(Append { conversation_id: conversation.id.clone(), items });
            store.finish_response("ada", &new.id, Finished { append, ..finished("{}") }).await.unwrap();
        }
        let items = store.all_items("ada", &conversation.id).await.unwrap();
        assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["msg_kept"]);
    })
    .await;
}

#[tokio::test]
async fn what_was_unfinished_is_failed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder).await;
    let (open, done) = (response(&id("resp"), None, 5), response(&id("resp"), None, 5));
    store.insert_response("ada", &open).await.unwrap();
    store.insert_response("ada", &done).await.unwrap();
    store.finish_response("ada", &done.id, finished("{}")).await.unwrap();
    // As after kill -9: the pool is not closed, the file is opened again.
    let again = sqlite(&folder).await;
    let failed = again.fail_unfinished(|body| body["status"] = "failed".into()).await.unwrap();
    assert_eq!(failed, 1);
    let kept = again.response("ada", &open.id).await.unwrap().unwrap();
    assert_eq!(kept.status, "failed");
    assert_eq!(kept.body, json!({ "id": open.id, "status": "failed" }).to_string());
    assert_eq!(again.response("ada", &done.id).await.unwrap().unwrap().status, "completed");
    assert_eq!(again.fail_unfinished(|_| ()).await.unwrap(), 0);
    assert_eq!(again.expire_responses(5).await.unwrap(), 0);
    assert_eq!(again.expire_responses(6).await.unwrap(), 2);
}

#[tokio::test]
async fn many_write_at_once() {
    on_each(async |store| {
        let ids: Vec<String> = (0..64).map(|_| id("resp")).collect();
        let write = async |id: &String| {
            store.insert_response("ada", &response(id, None, 1 << 40)).await?;
            store.finish_response("ada", id, finished("{}")).await
        };
        futures_util::future::try_join_all(ids.iter().map(write)).await.unwrap();
        for id in &ids {
            assert_eq!(store.response("ada", id).await.unwrap().unwrap().status, "completed");
        }
    })
    .await;
}

fn file(purpose: &str) -> StoredFile {
    StoredFile {
        id: id("file"),
        created_at: 7,
        expires_at: None,
        filename: "../../etc/passwd".into(),
        purpose: purpose.into(),
        num_bytes: 0,
    }
}

async fn content(store: &Store, file: &StoredFile) -> Vec<u8> {
    let mut all = Vec::new();
    for position in 0.. {
        let Some(chunk) = store.file_chunk(&file.id, position).await.unwrap() else { break };
        all.extend(chunk);
    }
    all
}

/// What is announced counts from the beginning: many uploads at once take no more room than one after the other.
#[tokio::test]
async fn uploads_that_are_under_way_take_room() {
    on_each(async |store| {
        let owner = id("key");
        let [mut first, second, third] = [100, 60, 40].map(|num_bytes| StoredFile { num_bytes, ..file("batch") });
        assert!(store.begin_file(&owner, &first, 150).await.unwrap());
        assert!(!store.begin_file(&owner, &second, 150).await.unwrap());
        assert!(store.begin_file(&owner, &third, 150).await.unwrap());
        first.num_bytes = 50;
        store.complete_file(&owner, &first).await.unwrap();
        assert_eq!(store.num_file_bytes(&owner).await.unwrap(), 90);
        assert!(store.begin_file(&owner, &second, 150).await.unwrap());
        assert!(store.begin_file(&id("key"), &StoredFile { id: id("file"), ..second }, 150).await.unwrap());
        assert!(!store.begin_file(&owner, &StoredFile { num_bytes: i64::MAX, ..file("batch") }, 150).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn a_file_is_seen_when_it_is_whole() {
    on_each(async |store| {
        let owner = id("key");
        let mut new = file("batch");
        assert!(store.begin_file(&owner, &new, 1 << 40).await.unwrap());
        store.add_chunk(&new.id, 0, vec![0, 1, 255]).await.unwrap();
        store.add_chunk(&new.id, 1, b"end".to_vec()).await.unwrap();
        assert!(store.file(&owner, &new.id).await.unwrap().is_none());
        new.num_bytes = 6;
        new.expires_at = Some(100);
        store.complete_file(&owner, &new).await.unwrap();
        assert_eq!(store.file(&owner, &new.id).await.unwrap().as_ref(), Some(&new));
        assert!(store.file("eve", &new.id).await.unwrap().is_none());
        assert_eq!(content(store, &new).await, [&[0, 1, 255], b"end".as_slice()].concat());
        assert_eq!(store.num_file_bytes(&owner).await.unwrap(), 6);
        let page = Page { after: None, ascending: false, limit: 10 };
        assert_eq!(store.list_files(&owner, Some("batch"), &page).await.unwrap().len(), 1);
        assert_eq!(store.list_files(&owner, Some("vision"), &page).await.unwrap().len(), 0);
        store.expire_files(99).await.unwrap();
        assert!(store.file(&owner, &new.id).await.unwrap().is_some());
        store.expire_files(100).await.unwrap();
        assert!(store.file(&owner, &new.id).await.unwrap().is_none() && content(store, &new).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_batchs_lines_have_one_result_each() {
    on_each(async |store| {
        let owner = id("key");
        let batch = |status: &str| StoredBatch {
            id: "batch_".to_owned() + &owner,
            owner: owner.clone(),
            status: status.into(),
            body: format!("{{\"status\":\"{status}\"}}"),
        };
        store.insert_batch(&batch("validating"), 3).await.unwrap();
        let item = |line: i64| BatchItem { line, custom_id: format!("c{line}"), text: format!("request {line}") };
        let items = (0..5).map(item).collect();
        assert!(store.start_batch(&batch("in_progress"), "validating", items).await.unwrap());
        assert!(!store.change_batch(&batch("in_progress"), "validating").await.unwrap());
        let id = batch("").id;
        assert_eq!(store.open_items(&id, -1, 2).await.unwrap(), [item(0), item(1)]);
        store.finish_item(&id, 1, false, "answer 1".into()).await.unwrap();
        store.finish_item(&id, 1, true, "again".into()).await.unwrap();
        store.finish_item(&id, 0, true, "error 0".into()).await.unwrap();
        store.finish_item(&id, 4, false, "a".repeat(CHUNK_BYTES)).await.unwrap();
        assert_eq!(store.open_items(&id, -1, 9).await.unwrap(), [item(2), item(3)]);
        let counts = BatchCounts { total: 5, completed: 2, failed: 1 };
        assert_eq!(store.batch_counts(&id).await.unwrap(), counts);
        let (out, errors) = (file("batch_output"), file("batch_output"));
        let files = vec![(false, out.clone()), (true, errors.clone())];
        assert!(store.finalize_batch(&batch("completed"), "in_progress", files).await.unwrap());
        let wanted = format!("answer 1\n{}\n", "a".repeat(CHUNK_BYTES));
        let out = store.file(&owner, &out.id).await.unwrap().unwrap();
        assert_eq!(out.num_bytes as usize, wanted.len());
        assert_eq!(content(store, &out).await, wanted.into_bytes());
        let errors = store.file(&owner, &errors.id).await.unwrap().unwrap();
        assert_eq!(content(store, &errors).await, b"error 0\n");
        assert_eq!(store.batch(&owner, &id).await.unwrap().unwrap(), batch("completed"));
        assert!(store.open_batches().await.unwrap().iter().all(|open| open.id != id));
    })
    .await;
}

/// PostgreSQL refuses texts with a zero byte, which a client can write into any id.
#[tokio::test]
async fn what_cannot_be_an_id_is_not_there() {
    on_each(async |store| {
        for id in ["", "a\0b", "\0", "../x", "a b", &"x".repeat(5000)] {
            assert!(store.response("ada", id).await.unwrap().is_none(), "{id:?}");
            assert!(!store.delete_response("ada", id).await.unwrap(), "{id:?}");
            assert!(store.chain("ada", id).await.unwrap().is_empty(), "{id:?}");
            assert!(store.conversation("ada", id).await.unwrap().is_none(), "{id:?}");
            assert!(store.file("ada", id).await.unwrap().is_none(), "{id:?}");
            assert!(store.batch("ada", id).await.unwrap().is_none(), "{id:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder).await;
    sqlx::query("UPDATE ossia_schema SET version = 99").execute(&store.pool).await.unwrap();
    let path = folder.path().join("a name with spaces ? #.db");
    assert!(matches!(Store::open_sqlite(&path).await, Err(StoreError::Newer { found: 99, .. })));
}

#[cfg(unix)]
#[tokio::test]
async fn the_database_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(&folder).await;
    store.insert_response("ada", &response(&id("resp"), None, 5)).await.unwrap();
    let entries: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(entries.len() >= 2, "no write-ahead log");
    for entry in entries {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
    }
}
