//! Rules of other systems, implemented from their descriptions, with their default constants.

mod envoy;
mod failsafe_go;
mod netflix_aimd;
mod netflix_gradient2;
mod netflix_vegas;
mod palantir;
mod sui;
mod tower_resilience_aimd;
mod tower_resilience_vegas;
mod vector;

pub use envoy::Envoy;
pub use failsafe_go::FailsafeGo;
pub use netflix_aimd::NetflixAimd;
pub use netflix_gradient2::NetflixGradient2;
pub use netflix_vegas::NetflixVegas;
pub use palantir::Palantir;
pub use sui::Sui;
pub use tower_resilience_aimd::TowerResilienceAimd;
pub use tower_resilience_vegas::TowerResilienceVegas;
pub use vector::Vector;

/// Returns the integer part of the decimal logarithm, at least one.
fn log10(limit: f64) -> f64 {
    if limit < 1.0 {
        1.0
    } else {
        limit.log10().trunc().max(1.0)
    }
}
