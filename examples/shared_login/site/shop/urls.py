from django.conf import settings
from django.contrib.auth.views import (
    LoginView,
    LogoutView,
    PasswordChangeDoneView,
    PasswordChangeView,
)
from django.urls import path

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("cart/", views.cart, name="cart"),
    path("cart/add/", views.cart_add, name="cart_add"),
    path("cart/remove/", views.cart_remove, name="cart_remove"),
    path(
        "login/",
        LoginView.as_view(
            template_name="shop/login.html",
            # Who came from the Rust service may be sent back to it.
            success_url_allowed_hosts={
                f"{host}:{settings.DEMO_RUST_PORT}" for host in settings.ALLOWED_HOSTS
            },
        ),
        name="login",
    ),
    path("logout/", LogoutView.as_view(), name="logout"),
    path(
        "password/",
        PasswordChangeView.as_view(template_name="shop/password_change.html"),
        name="password_change",
    ),
    path(
        "password/done/",
        PasswordChangeDoneView.as_view(template_name="shop/password_changed.html"),
        name="password_change_done",
    ),
]
