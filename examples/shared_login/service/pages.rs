//! The pages, made of the same markup as Django's templates. maud escapes whatever stands in parentheses.

use maud::{DOCTYPE, Markup, html};

use crate::visitor::{Account, Visitor};
use crate::{Item, MAX_NAME_LENGTH};

const SUGGESTIONS: [&str; 3] = ["Coffee beans", "Jasmine tea", "Stoneware mug"];

pub(crate) fn home(visitor: &Visitor, user: &Account, cookie_name: &str, kept: &str) -> Markup {
    let main = html! {
        h1 { "Hello, " (short_name(user)) "." }
        p.lead {
            "axum rendered this page. Your session is " (kept) ", where Django made it, "
            "and what is written here, Django reads back."
        }
        h2 { "How Rust knows you" }
        ol.steps {
            li { strong { "The cookie" } " " code { (cookie_name) } " came along: it does not care about ports." }
            li { strong { "The session" } ", " (kept) ", names user " (user.id) "." }
            li { strong { "The password hash" } " of that user still matches the one your session was begun with." }
        }
        p { a.button.primary href="/cart/" { "Go to your cart" } }
    };
    layout("Two Doors", "/", Some(visitor), main)
}

pub(crate) fn cart(visitor: &Visitor, user: &Account, cart: &[Item]) -> Markup {
    let main = html! {
        h1 { "Hello, " (short_name(user)) "." }
        p.lead { "Here is your cart, the way Rust reads it from your session." }
        section.panel aria-labelledby="cart-heading" {
            h2 id="cart-heading" { "In your cart" }
            @if cart.is_empty() {
                p.empty { "Nothing yet. Put something in, then open the other door." }
            } @else {
                ul.cart {
                    @for item in cart {
                        li {
                            span.item-name { (item.name) }
                            span class={ "origin origin-" (item.added_by.to_lowercase()) } { "added by " (item.added_by) }
                            form method="post" action="/cart/remove/" {
                                input type="hidden" name="id" value=(item.id);
                                button.quiet aria-label={ "Remove " (item.name) } { "Remove" }
                            }
                        }
                    }
                }
            }
            form.add method="post" action="/cart/add/" {
                label for="name" { "Add an item" }
                div.field-row {
                    input id="name" name="name" maxlength=(MAX_NAME_LENGTH) required autocomplete="off";
                    button.primary { "Add to cart" }
                }
            }
            form.suggestions method="post" action="/cart/add/" aria-label="Suggestions" {
                @for suggestion in SUGGESTIONS {
                    button.chip name="name" value=(suggestion) { (suggestion) }
                }
            }
        }
    };
    layout("Cart · Two Doors", "/cart/", Some(visitor), main)
}

/// What a visitor sees whom no session, or no valid one, names.
pub(crate) fn nobody(visitor: &Visitor) -> Markup {
    let main = html! {
        h1 { "Nobody is logged in." }
        p.lead {
            @if visitor.was_refused {
                "Your password was changed since you logged in here, which ends every older session. "
                "Log in again with the new one."
            } @else {
                "Django checks the password. Log in there, come back, and this page greets you by name."
            }
        }
        p.actions {
            a.button.primary href={ (visitor.django_url) "/login/?next=" (visitor.rust_url) "/" } { "Log in on Django" }
            a.button href={ (visitor.django_url) "/" } { "Go to the Django door" }
        }
    };
    layout("Two Doors", "/", Some(visitor), main)
}

pub(crate) fn problem(heading: &str, text: &str) -> Markup {
    let main = html! {
        h1 { (heading) }
        p.lead { (text) }
        p.actions { a.button href="/" { "To the shop" } }
    };
    layout("Two Doors", "", None, main)
}

fn layout(title: &str, path: &str, visitor: Option<&Visitor>, main: Markup) -> Markup {
    let user = visitor.and_then(|visitor| Some((visitor, visitor.user.as_ref()?)));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Rust" }
                link rel="icon" href="/static/shop/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/static/shop/shop.css";
            }
            body.door-rust {
                header.site-header {
                    a.wordmark href="/" {
                        svg viewBox="0 0 28 24" width="28" height="24" aria-hidden="true" {
                            rect.leaf.leaf-django x="1" y="1" width="12" height="22" rx="2" {}
                            rect.leaf.leaf-rust x="15" y="1" width="12" height="22" rx="2" {}
                            circle.knob cx="9.5" cy="12.5" r="1.3" {}
                            circle.knob cx="18.5" cy="12.5" r="1.3" {}
                        }
                        "Two Doors"
                    }
                    nav aria-label="Shop" {
                        a href="/" aria-current=[(path == "/").then_some("page")] { "Home" }
                        @if let Some((visitor, _)) = user {
                            a href="/cart/" aria-current=[(path == "/cart/").then_some("page")] {
                                "Cart " span.count { (visitor.cart_size()) }
                            }
                        }
                    }
                    p.badge { span.visually-hidden { "This page was rendered by " } "axum · Rust" }
                }
                div.columns {
                    main { (main) }
                    @if let Some((visitor, user)) = user { (session_panel(visitor, user, path)) }
                }
            }
        }
    }
}

fn session_panel(visitor: &Visitor, user: &Account, path: &str) -> Markup {
    html! {
        aside.panel aria-labelledby="session-heading" {
            h2 id="session-heading" { "Your session" }
            dl {
                div { dt { "Logged in as" } dd { (full_name(user)) " " span.muted { "(" (user.username) ")" } } }
                div { dt { "Session key" } dd { code { (visitor.short_session_key()) } } }
                div { dt { "Stays until" } dd { (visitor.stays_until) } }
            }
            div.actions {
                a.button href={ (visitor.django_url) "/password/" } { "Change password" }
                form method="post" action="/logout/" { button { "Log out" } }
            }
            a.other-door href={ (visitor.django_url) (path) } {
                span.muted { "The same session, other door" }
                strong { "Open in Django " span aria-hidden="true" { "→" } }
            }
        }
    }
}

fn short_name(user: &Account) -> &str {
    if user.first_name.is_empty() { &user.username } else { &user.first_name }
}

fn full_name(user: &Account) -> String {
    let name = format!("{} {}", user.first_name, user.last_name);
    if name.trim().is_empty() { user.username.clone() } else { name.trim().to_owned() }
}
