//! Webhooks as arguments of axum's handlers.

use axum_core::{
    body::Body,
    extract::{FromRef, FromRequest, Request},
    response::{IntoResponse, Response},
};

use super::{Receiver, Refusal, Webhook};

/// Reads and verifies a webhook, with the [`Receiver`] in the router's state. What is refused is answered and logged as the
/// receiver does.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum_core::response::IntoResponse;
/// use didit_api::webhook::Secrets;
/// use tower_didit::webhook::{Receiver, Refusal, Webhook, inbox::MemoryInbox};
///
/// let secrets = Secrets::new(["example-secret-not-real-0123456789abcdefghi"])?;
/// let receiver = Receiver::builder(secrets, MemoryInbox::new()).build()?;
///
/// // A handler: `Router::new().route("/webhooks/didit", post(webhook)).with_state(receiver)`.
/// async fn webhook(webhook: Webhook) -> Result<(), Refusal> {
///     if webhook.event().session_status().is_some() {
///         webhook.accept().await?;
///     }
///     Ok(())
/// }
/// # let _ = (receiver, webhook);
/// # Ok(())
/// # }
/// ```
impl<S> FromRequest<S> for Webhook
where
    Receiver: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        Receiver::from_ref(state).verify(request).await.inspect_err(Refusal::log)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.to_response().map(Body::new)
    }
}
