//! The result of a sampling window.

/// The counts and means of a closed sampling window.
///
/// ```
/// use bulkman::adaptive::ClosedWindow;
///
/// let window = ClosedWindow {
///     successes: 64,
///     latency: 0.02,
///     throughput: 320.0,
///     ..ClosedWindow::default()
/// };
/// assert!(window.is_valid());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClosedWindow {
    /// The number of successful calls.
    pub successes: u64,
    /// The mean latency of the successful calls, in seconds; zero without one.
    pub latency: f64,
    /// The number of calls that ended by an overload.
    pub overloads: u64,
    /// The successful calls a second.
    pub throughput: f64,
    /// Whether a call lacked a permit, or the calls in flight equaled the limit.
    pub reached: bool,
    /// The largest number of calls in flight.
    pub peak: u64,
}

impl ClosedWindow {
    /// Returns `true` if the figures can be used.
    ///
    /// With at least one success, latency and throughput must be finite and positive.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let positive = |figure: f64| figure.is_finite() && figure > 0.0;
        self.successes == 0 || (positive(self.latency) && positive(self.throughput))
    }

    /// Returns `true` if overloads are more than noise: at least two, and five percent.
    pub(super) fn is_overloaded(&self) -> bool {
        let calls = self.successes.saturating_add(self.overloads);
        self.overloads as f64 >= f64::max(2.0, 0.05 * calls as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_needs_two_calls_and_five_percent() {
        let window = |successes, overloads| ClosedWindow {
            successes,
            overloads,
            ..ClosedWindow::default()
        };
        assert!(!window(1, 1).is_overloaded());
        assert!(window(1, 2).is_overloaded());
        assert!(!window(96, 4).is_overloaded());
        assert!(window(95, 5).is_overloaded());
        assert!(window(u64::MAX, u64::MAX).is_overloaded());
    }

    #[test]
    fn figures_that_are_not_positive_are_invalid() {
        for (latency, throughput) in [
            (0.0, 1.0),
            (1.0, 0.0),
            (-1.0, 1.0),
            (f64::NAN, 1.0),
            (1.0, f64::INFINITY),
        ] {
            let window = ClosedWindow {
                successes: 1,
                latency,
                throughput,
                ..ClosedWindow::default()
            };
            assert!(!window.is_valid(), "{window:?}");
        }
        assert!(ClosedWindow::default().is_valid());
    }
}
