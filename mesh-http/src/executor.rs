use std::future::Future;

/// Spawns hyper's tasks on the current thread's `LocalRuntime` or `LocalSet`.
///
/// The tasks are those of connections; they end when their connection does.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
