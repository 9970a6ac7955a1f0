use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::super::messages::MessagesSite;
use super::{Answer, cookies_of, finish, take_ready};
use crate::contrib::messages::{Storage, UnknownStorage};
use crate::settings::Settings;
use crate::web::{Messages, Session};

/// Gives each request its [`Messages`], and stores them after the handler: Django's `MessageMiddleware`. It stands inside
/// of [`SessionLayer`](super::SessionLayer), which saves the session with what is in it.
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::{Router, response::Redirect, routing::post};
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::settings::Settings;
/// use django_sessions::web::Messages;
/// use django_sessions::web::tower::MessagesLayer;
///
/// async fn order(messages: Messages) -> Redirect {
///     messages.success("Your order is placed.").await;
///     Redirect::to("/orders/") // a page of Django shows it
/// }
///
/// let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
/// let messages = MessagesLayer::new(settings)?;
/// let app: Router = Router::new().route("/order/", post(order)).layer(messages); // then the SessionLayer
/// # }
/// # Ok::<(), django_sessions::contrib::messages::UnknownStorage>(())
/// ```
#[derive(Clone, Debug)]
pub struct MessagesLayer {
    site: Arc<MessagesSite>,
}

impl MessagesLayer {
    /// Messages as the settings keep them.
    ///
    /// # Errors
    /// When `MESSAGE_STORAGE` is none of Django's three.
    pub fn new(settings: impl Into<Arc<Settings>>) -> Result<Self, UnknownStorage> {
        let settings = settings.into();
        let storage = settings.messages.storage.parse()?;
        Ok(Self::with_storage(settings, storage))
    }

    /// Messages in this storage, for a site whose own class works like it.
    pub fn with_storage(settings: impl Into<Arc<Settings>>, storage: Storage) -> Self {
        Self { site: Arc::new(MessagesSite { settings: settings.into(), storage }) }
    }
}

impl<S> Layer<S> for MessagesLayer {
    type Service = MessagesService<S>;

    fn layer(&self, inner: S) -> MessagesService<S> {
        MessagesService { inner, site: self.site.clone() }
    }
}

/// What [`MessagesLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct MessagesService<S> {
    inner: S,
    site: Arc<MessagesSite>,
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for MessagesService<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>> + Clone + Send + 'static,
    S::Future: Send,
    RequestBody: Send + 'static,
    ResponseBody: From<&'static str> + Send,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = Answer<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let mut inner = take_ready(&mut self.inner);
        let session = request.extensions().get::<Session>().cloned();
        let messages = Messages::new(&self.site, &cookies_of(&request), session);
        request.extensions_mut().insert(messages.clone());
        Box::pin(async move {
            let response = inner.call(request).await?;
            Ok(finish(response, messages.finish().await))
        })
    }
}
