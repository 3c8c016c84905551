//! The futures returned by the methods of a bulkhead and of a manager.
//!
//! They have names, so that they can be stored in structs and returned from functions.

pub use crate::bulkhead::drained::Drained;
pub use crate::call::execute::{Execute, ExecuteOwned};
pub use crate::call::execute_blocking::ExecuteBlocking;
pub use crate::call::permit::Acquire;
pub use crate::call::report::ExecuteWithReport;
pub use crate::manager::ExecuteInBulkhead;
