use std::future::{Ready, ready};
use std::rc::Rc;
use std::sync::Arc;

use actix_web::HttpMessage;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};

use super::super::messages::MessagesSite;
use super::{Answer, cookies_of, finish};
use crate::contrib::messages::{Storage, UnknownStorage};
use crate::settings::Settings;
use crate::web::{Messages, Session};

/// Gives each request its [`Messages`], and stores them after the handler: Django's `MessageMiddleware`. It stands inside
/// of [`SessionMiddleware`](super::SessionMiddleware), that is, it is wrapped before it.
///
/// ```
/// use actix_web::{App, web};
/// use django_sessions::crypto::SecretKeys;
/// use django_sessions::settings::Settings;
/// use django_sessions::web::Messages;
/// use django_sessions::web::actix::MessagesMiddleware;
///
/// async fn order(messages: Messages) -> &'static str {
///     messages.success("Your order is placed.").await; // a page of Django shows it
///     "ordered"
/// }
///
/// let settings = Settings::new(SecretKeys::new("the site's SECRET_KEY"));
/// let messages = MessagesMiddleware::new(settings)?;
/// let app = App::new().wrap(messages).route("/order/", web::post().to(order)); // then the SessionMiddleware
/// # Ok::<(), django_sessions::contrib::messages::UnknownStorage>(())
/// ```
#[derive(Clone, Debug)]
pub struct MessagesMiddleware {
    site: Arc<MessagesSite>,
}

impl MessagesMiddleware {
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

impl<S, B> Transform<S, ServiceRequest> for MessagesMiddleware
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Transform = MessagesService<S>;
    type InitError = ();
    type Future = Ready<Result<MessagesService<S>, ()>>;

    fn new_transform(&self, service: S) -> Self::Future {
        ready(Ok(MessagesService { service: Rc::new(service), site: self.site.clone() }))
    }
}

/// What [`MessagesMiddleware`] makes of a service.
#[derive(Debug)]
pub struct MessagesService<S> {
    service: Rc<S>,
    site: Arc<MessagesSite>,
}

impl<S, B> Service<ServiceRequest> for MessagesService<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error> + 'static,
    B: MessageBody + 'static,
{
    type Response = ServiceResponse<EitherBody<B>>;
    type Error = actix_web::Error;
    type Future = Answer<B>;

    forward_ready!(service);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        let session = request.extensions().get::<Session>().cloned();
        let messages = Messages::new(&self.site, &cookies_of(&request), session);
        request.extensions_mut().insert(messages.clone());
        let service = self.service.clone();
        Box::pin(async move {
            let result = service.call(request).await;
            finish(result, messages.finish().await)
        })
    }
}
