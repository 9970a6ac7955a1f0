from django.contrib.auth.decorators import login_required
from django.shortcuts import redirect, render
from django.utils.crypto import get_random_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

SUGGESTIONS = ["Coffee beans", "Jasmine tea", "Stoneware mug"]
MAX_NAME_LENGTH = 80


@never_cache
def home(request):
    return render(request, "shop/home.html")


@login_required
@never_cache
def cart(request):
    return render(
        request,
        "shop/cart.html",
        {
            "cart": request.session.get("cart", []),
            "suggestions": SUGGESTIONS,
            "max_name_length": MAX_NAME_LENGTH,
        },
    )


@login_required
@require_POST
def cart_add(request):
    name = request.POST.get("name", "").strip()[:MAX_NAME_LENGTH]
    if name:
        item = {"id": get_random_string(8), "name": name, "added_by": "Django"}
        request.session["cart"] = [*request.session.get("cart", []), item]
    return redirect("cart")


@login_required
@require_POST
def cart_remove(request):
    item_id = request.POST.get("id")
    cart = request.session.get("cart", [])
    request.session["cart"] = [item for item in cart if item["id"] != item_id]
    return redirect("cart")
