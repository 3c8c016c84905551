//! The result of a simulation.

/// The result of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The responses in time a second, of all clients.
    pub in_time_per_second: f64,
    /// The responses of each client.
    pub completed: Vec<u64>,
    /// The share of calls that were rejected because of the limit.
    pub rejected: f64,
    /// The timeouts and rejections by the server, a second.
    pub overloads_per_second: f64,
    /// The latencies of all responses in seconds, ascending.
    pub latencies: Vec<f64>,
    /// The limit of the first client, with the time, at most every 0.1 s.
    pub limits: Vec<(f64, u64)>,
    /// The responses in each tenth of a second.
    pub responses: Vec<u64>,
    /// The responses in time in each tenth of a second.
    pub in_time: Vec<u64>,
    /// The sums of the latencies of the responses in each tenth of a second, in seconds.
    pub latency_sums: Vec<f64>,
}

impl Run {
    /// Returns the latency below which this share of the responses is.
    ///
    /// It is not a number if there were no responses.
    #[must_use]
    pub fn percentile(&self, share: f64) -> f64 {
        let Some(last) = self.latencies.len().checked_sub(1) else {
            return f64::NAN;
        };
        self.latencies[(share * last as f64) as usize]
    }

    /// Returns the mean of the first client's limit from `from` to `to`, in seconds.
    #[must_use]
    pub fn mean_limit(&self, from: f64, to: f64) -> f64 {
        let within: Vec<u64> = self.limits_between(from, to).collect();
        within.iter().sum::<u64>() as f64 / within.len() as f64
    }

    /// Returns the largest limit of the first client from `from` to `to`.
    #[must_use]
    pub fn largest_limit(&self, from: f64, to: f64) -> u64 {
        self.limits_between(from, to).max().unwrap_or(0)
    }

    /// Returns the responses a second from `from` to `to`, which are multiples of 0.1 s.
    #[must_use]
    pub fn throughput(&self, from: f64, to: f64) -> f64 {
        let bucket = |time: f64| ((time * 10.0).round() as usize).min(self.responses.len());
        self.responses[bucket(from)..bucket(to)].iter().sum::<u64>() as f64 / (to - from)
    }

    /// Returns the responses in time a second in each period, with the middle of the period.
    ///
    /// A period lasts for `tenths` of a second.
    #[must_use]
    pub fn goodput(&self, tenths: usize) -> Vec<(f64, f64)> {
        let seconds = tenths as f64 / 10.0;
        (self.in_time.chunks_exact(tenths).enumerate())
            .map(|(index, counts)| {
                let middle = (index as f64 + 0.5) * seconds;
                (middle, counts.iter().sum::<u64>() as f64 / seconds)
            })
            .collect()
    }

    /// Returns the mean latency in each period, as [`goodput`](Self::goodput).
    ///
    /// A period without a response is left out.
    #[must_use]
    pub fn mean_latencies(&self, tenths: usize) -> Vec<(f64, f64)> {
        let sums = self.latency_sums.chunks_exact(tenths);
        (sums.zip(self.responses.chunks_exact(tenths)).enumerate())
            .filter_map(|(index, (sums, counts))| {
                let middle = (index as f64 + 0.5) * tenths as f64 / 10.0;
                let count = counts.iter().sum::<u64>();
                (count > 0).then(|| (middle, sums.iter().sum::<f64>() / count as f64))
            })
            .collect()
    }

    /// Returns the responses of the smallest client relative to those of the largest.
    #[must_use]
    pub fn fairness(&self) -> f64 {
        let smallest = self.completed.iter().min().copied().unwrap_or(0);
        let largest = self.completed.iter().max().copied().unwrap_or(0);
        smallest as f64 / largest.max(1) as f64
    }

    fn limits_between(&self, from: f64, to: f64) -> impl Iterator<Item = u64> {
        self.limits
            .iter()
            .filter(move |(time, _)| (from..to).contains(time))
            .map(|(_, limit)| *limit)
    }
}
