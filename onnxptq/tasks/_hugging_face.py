"""Preprocessing in the words of Hugging Face: `preprocessor_config.json`, `tokenizer_config.json` and `config.json`.

Keys as the image processors of the transformers library read them (`do_resize`, `size`, `crop_size`, `crop_pct`,
`do_rescale`, `rescale_factor`, `rescale_offset`, `do_normalize`, `image_mean`, `image_std`, `resample`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxptq.errors import UsageError

RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters by their number."""

UNLIMITED = 1e9
"""A `model_max_length` from here on says that nobody set one."""

STRETCHING = ("Beit", "BEiT", "DeiT", "ViT")
"""Processors that stretch to a size that is given as one number."""

STRETCH_FROM = 384
"""ConvNeXT's processor stretches from this size on, and cuts out the centre (`crop_pct`) below."""


def image_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """A `preprocessor_config.json` as a specification of images.

    Raises:
        UsageError: a size is in a form that is not known.
    """
    _check_types(config)
    keys = _normalisation(config)
    resample = config.get("resample")
    if isinstance(resample, int) and 0 <= resample < len(RESAMPLE):
        keys["interpolation"] = RESAMPLE[resample]
    if config.get("do_flip_channel_order"):
        keys["color"] = "BGR"
    return {**keys, **_sizes(config)}


def _check_types(config: Mapping[str, Any]) -> None:
    numbers = {"rescale_factor": config.get("rescale_factor"), "crop_pct": config.get("crop_pct")}
    for key in ("image_mean", "image_std"):
        values = config.get(key)
        if values is not None and not isinstance(values, list):
            raise UsageError(f"the key {key!r} of preprocessor_config.json must be a list of numbers, got {values!r}.")
        numbers.update({f"{key}[{position}]": value for position, value in enumerate(values or ())})
    for key, value in numbers.items():
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool)):
            raise UsageError(f"the key {key!r} of preprocessor_config.json must be a number, got {value!r}.")
    if config.get("crop_pct") is not None and not 0 < config["crop_pct"] <= 1:
        raise UsageError(
            f"the key 'crop_pct' of preprocessor_config.json must lie in (0, 1], got {config['crop_pct']}."
        )


def text_keys(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A `tokenizer_config.json` and a `config.json` as a specification of texts, "tokenizer" with `pad`.

    Most tokens of a text is the smaller of `model_max_length`, which is 1e30 where nobody set it, and the places that
    the model has embeddings for (RoBERTa's two for padding are left out of the former, which is then the smaller).
    """
    pad = tokenizer.get("pad_token")
    pad = pad.get("content") if isinstance(pad, Mapping) else pad
    limits = (tokenizer.get("model_max_length"), config.get("max_position_embeddings"))
    known = [int(limit) for limit in limits if isinstance(limit, (int, float)) and 0 < limit < UNLIMITED]
    keys: dict[str, Any] = {"tokenizer": {"pad": pad} if pad else {}}
    if known:
        keys["max_length"] = min(known)
    if names := class_names(config):
        keys["classes"] = names
    return keys


def class_names(config: Mapping[str, Any]) -> list[str] | None:
    """The names in the `id2label` of a `config.json`, in the order of their numbers, or None without."""
    names = config.get("id2label")
    if not isinstance(names, Mapping) or not names:
        return None
    if not all(isinstance(key, str) and key.isdecimal() for key in names):
        raise UsageError('the key \'id2label\' of config.json must hold a name for each number, as {"0": "cat"}.')
    return [str(names[key]) for key in sorted(names, key=int)]


def _normalisation(config: Mapping[str, Any]) -> dict[str, Any]:
    """x * rescale_factor (- 1 with rescale_offset), then (x - mean) / std; without rescaling, x stays 0 to 255."""
    keys: dict[str, Any] = {
        "scale": _or(config.get("rescale_factor"), 1 / 255) if config.get("do_rescale", True) else 1.0
    }
    offset = 1.0 if config.get("rescale_offset") else 0.0
    mean, std = [0.0], [1.0]
    if config.get("do_normalize", "image_mean" in config):
        mean, std = _or(config.get("image_mean"), mean), _or(config.get("image_std"), std)
    return {**keys, "mean": [value + offset for value in mean], "std": list(std)}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    size = config.get("size")
    crop = _both(config.get("crop_size")) if config.get("do_center_crop", False) else None
    if not config.get("do_resize", size is not None):
        return {"resize": "none", **({"size": crop} if crop else {})}
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    # A bare number with a crop is the shortest edge, but for processors that have always stretched.
    stretches = not isinstance(size, int) or not crop or kind.startswith(STRETCHING)
    crop_pct = config.get("crop_pct")
    if stretches and crop_pct is None and (stretched := _both(size)):
        return {"resize": "stretch", "resize_to": stretched, "size": crop or stretched}
    edge = size if isinstance(size, int) else size.get("shortest_edge") if isinstance(size, Mapping) else None
    if not isinstance(edge, int):
        raise UsageError(f"the size {size} in preprocessor_config.json is in an unknown form; give --size.")
    if crop_pct is not None:
        if edge >= STRETCH_FROM:
            return {"resize": "stretch", "size": [edge, edge]}
        return {"resize": "shortest", "resize_to": int(edge / crop_pct), "size": [edge, edge]}
    return {"resize": "shortest", "resize_to": edge, "size": crop or [edge, edge]}


def _both(size: Any) -> list[int] | None:
    """[height, width] of a number or a mapping of the two, else None."""
    if isinstance(size, int):
        return [size, size]
    if isinstance(size, Mapping) and "height" in size and "width" in size:
        return [size["height"], size["width"]]
    return None
