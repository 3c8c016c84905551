//! A subscriber that records spans and events as texts.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// Runs `code` under a subscriber that records everything up to `level`.
pub(crate) fn record_events<R>(level: Level, code: impl FnOnce() -> R) -> (R, Recorded) {
    let recorded = Recorded::default();
    let filter = tracing_subscriber::filter::LevelFilter::from_level(level);
    let subscriber = Registry::default().with(Recorder(recorded.clone()).with_filter(filter));
    (
        tracing::subscriber::with_default(subscriber, code),
        recorded,
    )
}

pub(crate) type Fields = BTreeMap<String, String>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded(pub(crate) Arc<Mutex<Vec<(u64, Fields)>>>);

impl Recorded {
    /// Returns the spans with this name, in the order of their creation, with their fields.
    pub(crate) fn spans(&self, name: &str) -> Vec<Fields> {
        self.of("span", name)
    }

    pub(crate) fn events(&self, message: &str) -> Vec<Fields> {
        self.of("message", message)
    }

    fn of(&self, key: &str, value: &str) -> Vec<Fields> {
        let all = self.0.lock().unwrap();
        all.iter()
            .map(|(_, fields)| fields)
            .filter(|f| f.get(key).is_some_and(|v| v == value))
            .cloned()
            .collect()
    }
}

pub(crate) struct Recorder(pub(crate) Recorded);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut fields = Fields::new();
        attributes.record(&mut Texts(&mut fields));
        fields.insert("span".into(), attributes.metadata().name().into());
        if let Some(parent) = cx.span(id).and_then(|span| span.parent()) {
            fields.insert("parent".into(), parent.name().into());
        }
        self.0.0.lock().unwrap().push((id.into_u64(), fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        let mut all = self.0.0.lock().unwrap();
        // The newest span with this id, because ids are reused.
        let span = all
            .iter_mut()
            .rev()
            .find(|(other, _)| *other == id.into_u64())
            .unwrap();
        values.record(&mut Texts(&mut span.1));
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Texts(&mut fields));
        fields.insert("level".into(), event.metadata().level().to_string());
        if let Some(span) = cx.lookup_current() {
            fields.insert("in span".into(), span.name().into());
        }
        self.0.0.lock().unwrap().push((0, fields));
    }
}

struct Texts<'a>(&'a mut Fields);

impl Visit for Texts<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

pub(crate) struct Targets(pub(crate) fn(&str) -> bool);

impl<S> Filter<S> for Targets {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.0(metadata.target())
    }
}
