//! Names and texts that attempt injection, or are too long.

use std::sync::Arc;

use super::{Client, Harness, ISOLATION, applied, open};
use crate::name::BulkheadName;
use crate::store::{Epoch, FleetState, StoreTransition};

pub(super) async fn hostile_names_are_stored_verbatim(harness: &dyn Harness) {
    let hostile = [
        "'; DROP SCHEMA bulkman CASCADE; --".to_owned(),
        "\"quoted\" and \\ slashed $1 $$ %s {}".to_owned(),
        "1|2|3|open".to_owned(),
        " leading and trailing ".to_owned(),
        "日本 zahlungsgebühr \u{202e}".to_owned(),
        "x".repeat(BulkheadName::MAX_LENGTH),
        "NULL".to_owned(),
        "{a,b}".to_owned(),
    ];
    let names: Vec<_> = hostile
        .iter()
        .map(|name| BulkheadName::new(name).unwrap())
        .collect();
    for namespace in ["'; --", "\"; DROP", "日本", &"n".repeat(200)] {
        let store = harness.store(namespace);
        let mut session = store.open_session(&names).await.unwrap();
        for (index, name) in names.iter().enumerate() {
            let operation = crate::store::OperationId(1 + index as u64);
            let mut opening =
                StoreTransition::new(name.clone(), Epoch(0), open(ISOLATION), operation);
            opening.author = Arc::from("'; --");
            applied(session.transition(&opening).await.unwrap());
            let snapshot = session.snapshot(None).await.unwrap();
            let is_open = |name: &BulkheadName| {
                snapshot
                    .circuits
                    .iter()
                    .any(|v| v.circuit == *name && v.state == FleetState::Open)
            };
            assert_eq!(
                snapshot.circuits.len(),
                names.len(),
                "exactly the registered circuits"
            );
            assert!(names[..=index].iter().all(is_open) && !names[index + 1..].iter().any(is_open));
        }
    }
}

pub(super) async fn long_texts_are_truncated(harness: &dyn Harness) {
    let mut client = Client::new(harness, 1).await;
    let mut opening = client.transition(Epoch(0), open(ISOLATION));
    let long: String = "ü".repeat(5_000);
    opening.author = Arc::from(long.as_str());
    opening.reason = Arc::from(format!("x{long}"));
    applied(client.send(&opening).await);
    let view = client.view().await;
    for text in [&view.author, &view.reason] {
        assert!(
            (100..=200).contains(&text.len()),
            "{} bytes are stored",
            text.len()
        );
    }
    assert!(long.starts_with(&*view.author));
}
