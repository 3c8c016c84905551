//! What is heard on a namespace's channel.
//!
//! Anybody who may connect to the database can say something there. An announcement is sealed with
//! an HMAC (RFC 2104) under a key that only those can read who may change circuits anyway; it covers
//! the channel, and the revision, so that an old one says nothing new. Whatever else looks like an
//! announcement is a hint that something may have changed.

use std::sync::Arc;

use bulkman_core::bulkhead::BulkheadName;
use bulkman_core::store::{
    CircuitView, Epoch, Fingerprint, Revision, Snapshot, StoreEvent, StoreTime,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::plan::PlanColumns;
use crate::rows;

/// Understands the announcements of one namespace.
pub(crate) struct Ear {
    channel: String,
    /// `None` for a role that can't read the key: to it, everything is a hint.
    seal: Option<Hmac<Sha256>>,
    incarnation: u64,
}

impl Ear {
    /// `key` as the table has it: combined with HMAC's inner constant.
    pub(crate) fn new(channel: String, key: Option<Vec<u8>>, incarnation: u64) -> Self {
        let key = key.map(|key| key.iter().map(|byte| byte ^ HMAC_INNER).collect::<Vec<_>>());
        let seal = key.and_then(|key| Hmac::new_from_slice(&key).ok());
        Self {
            channel,
            seal,
            incarnation,
        }
    }

    /// `None` for what nobody needs to hear.
    pub(crate) fn understand(&self, payload: &str) -> Option<StoreEvent> {
        let (version, rest) = payload.split_once('|')?;
        if version != "1" {
            return None;
        }
        let (revision, rest) = rest.split_once('|').unwrap_or((rest, ""));
        let revision = Revision(revision.parse().ok()?);
        let told = rest.split_once('|').and_then(|(seal, change)| {
            self.is_sealed(seal, revision, change)
                .then(|| self.change(revision, change))?
        });
        Some(told.unwrap_or(StoreEvent::Changed { revision }))
    }

    fn is_sealed(&self, seal: &str, revision: Revision, change: &str) -> bool {
        let (Some(hmac), Some(seal)) = (&self.seal, from_hex(seal)) else {
            return false;
        };
        let mut hmac = hmac.clone();
        hmac.update(self.channel.as_bytes());
        hmac.update(format!("|{}|", revision.0).as_bytes());
        hmac.update(change.as_bytes());
        hmac.verify_slice(&seal).is_ok()
    }

    /// The fields in the order in which `announce()` in `schema.sql` writes them.
    fn change(&self, revision: Revision, change: &str) -> Option<StoreEvent> {
        let mut fields = change.splitn(FIELDS, '|');
        let mut number = || fields.next()?.parse::<i64>().ok();
        let fingerprint = Fingerprint(number()?.cast_unsigned());
        let now = StoreTime(number()?);
        let state = rows::known_state(i16::try_from(number()?).ok()?)?;
        let epoch = Epoch(rows::unsigned(number()?));
        let open_count = u32::try_from(number()?).ok()?;
        let wait = rows::micros(number()?);
        let mut small = || i16::try_from(number()?).ok();
        let (limit, need, calls) = (small()?, small()?, small()?);
        // What is not there is written as -1.
        let (max_failed, max_slow) = (small()?, small()?);
        let plan = PlanColumns {
            limit,
            need,
            calls,
            max_failed: (max_failed >= 0).then_some(max_failed),
            max_slow: (max_slow >= 0).then_some(max_slow),
        };
        let operation = rows::operation(number()?);
        let mut length = || usize::try_from(number()?).ok();
        let (of_name, of_author) = (length()?, length()?);
        let (name, rest) = split_at(fields.next()?, of_name)?;
        let (changed_by, reason) = split_at(rest, of_author)?;

        let mut view = CircuitView::new(BulkheadName::new(name).ok()?);
        (view.state, view.epoch, view.revision) = (state, epoch, revision);
        (view.open_count, view.wait, view.remaining) = (open_count, wait, wait);
        (view.plan, view.operation) = (plan.plan(), operation);
        (view.changed_by, view.reason) = (Arc::from(changed_by), Arc::from(reason));
        let after = Snapshot::new(revision, self.incarnation, fingerprint, now, vec![view]);
        Some(StoreEvent::Applied(Box::new(after)))
    }
}

/// At so many characters, not bytes: the database counts in its own encoding.
fn split_at(text: &str, characters: usize) -> Option<(&str, &str)> {
    let end = text
        .char_indices()
        .map(|(index, _)| index)
        .chain([text.len()])
        .nth(characters)?;
    Some(text.split_at(end))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .chars()
        .map(|digit| digit.to_digit(16))
        .collect::<Option<Vec<_>>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(high << 4 | low).ok())
        .collect()
}

const HMAC_INNER: u8 = 0x36;
/// Separated by bars; the last one is the texts, which may have bars of their own.
const FIELDS: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    /// The payload that `schema.sql` makes for the key of 64 bytes `0x36`, checked with a server.
    #[test]
    fn what_is_not_sealed_is_a_hint() {
        let hint = |revision| {
            Some(StoreEvent::Changed {
                revision: Revision(revision),
            })
        };
        let (change, ear) = (
            "5|0|1|1|1|1000|1|1|0|-1|-1|9|1|1|abc",
            ear(Some(vec![0; 64])),
        );
        let seal = |ear: &Ear, said: &str| -> String {
            let mut hmac = ear.seal.clone().unwrap();
            hmac.update(said.as_bytes());
            hmac.finalize()
                .into_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        let right = seal(&ear, &format!("channel|7|{change}"));
        let Some(StoreEvent::Applied(after)) = ear.understand(&format!("1|7|{right}|{change}"))
        else {
            panic!()
        };
        let view = &after.circuits[0];
        assert_eq!(
            (view.circuit.as_str(), &*view.changed_by, &*view.reason),
            ("a", "b", "c")
        );
        // Another revision, another text, another channel, another key, none.
        assert_eq!(ear.understand(&format!("1|8|{right}|{change}")), hint(8));
        assert_eq!(ear.understand(&format!("1|7|{right}|{change}x")), hint(7));
        let elsewhere = seal(&ear, &format!("other|7|{change}"));
        assert_eq!(
            ear.understand(&format!("1|7|{elsewhere}|{change}")),
            hint(7)
        );
        for other in [self::ear(Some(vec![1; 64])), self::ear(None)] {
            assert_eq!(other.understand(&format!("1|7|{right}|{change}")), hint(7));
        }
        // Sealed, and not to be understood: of a later version.
        for change in [
            "",
            "5",
            "5|0|9|1|1|1000|1|1|0|-1|-1|9|1|1|abc",
            "5|0|1|1|1|1000|1|1|0|-1|-1|9|2|3|abc",
        ] {
            let right = seal(&ear, &format!("channel|7|{change}"));
            assert_eq!(
                ear.understand(&format!("1|7|{right}|{change}")),
                hint(7),
                "{change}"
            );
        }
        for seal in [
            "",
            "0",
            "zz",
            "é",
            &"0".repeat(63),
            &"0".repeat(64),
            &"0".repeat(9_999),
        ] {
            assert_eq!(
                ear.understand(&format!("1|7|{seal}|{change}")),
                hint(7),
                "{seal}"
            );
        }
    }

    #[test]
    fn hints_are_heard_and_noise_is_not() {
        let ear = ear(None);
        for payload in ["1|7", "1|7|", "1|7|more", "1|7|more|and more"] {
            assert_eq!(
                ear.understand(payload),
                Some(StoreEvent::Changed {
                    revision: Revision(7)
                }),
                "{payload}"
            );
        }
        for payload in [
            "",
            "1",
            "1|",
            "2|7",
            "1|x",
            "1|-1",
            "7",
            "1|99999999999999999999",
            "|||",
        ] {
            assert_eq!(ear.understand(payload), None, "{payload}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(split_at("äöü", 2), Some(("äö", "ü")));
        assert_eq!(split_at("äöü", 3), Some(("äöü", "")));
        assert_eq!(split_at("äöü", 4), None);
    }

    fn ear(key: Option<Vec<u8>>) -> Ear {
        Ear::new("channel".to_owned(), key, 1)
    }
}
