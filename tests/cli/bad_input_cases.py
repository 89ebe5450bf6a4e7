"""What `test_bad_inputs` gives to the command: preparation, command line, and the decisive words of the answer."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from tests.cli.bad_inputs import (
    Prepare,
    another_file,
    data,
    link,
    listening,
    nothing,
    photos,
    pipe,
    run_without_checkpoints,
    save,
    space,
    spoiled,
    text,
    truncated,
    weights,
)

FIT = "fit --method joint --data TOY --trainer.max_steps 1"
CUT = f"{FIT} --data.target.images real/train/image --data.target.masks real/train/mask --data.target.blocks"
OWN = f"{FIT} --data.source.label_space own.yaml --data.target.label_space own.yaml"
COPY = f"{FIT} --data.root data"
PREDICT = "predict --ckpt_path LAST --input photos --device cpu"

CASES: Mapping[str, tuple[Prepare, str, tuple[str, ...]]] = {
    # Commands and their options
    "command-in-capitals": (nothing, "FIT", ("unknown command 'FIT'", "fit, folds")),
    "method-without-its-option": (nothing, "fit metapix", ("unexpected argument 'metapix'", "options start with '--'")),
    "methods-with-an-argument": (nothing, "methods joint", ("unknown option 'joint'", "--json")),
    "test-without-a-model": (nothing, "test", ("`segzoo test` needs a trained model", "--ckpt_path runs/")),
    "last-of-another-data-set": (
        nothing,
        "test --ckpt_path last --method joint",
        ("runs/joint/minicity", "--ckpt_path FILE"),
    ),
    "method-is-not-the-checkpoints": (
        nothing,
        "test --ckpt_path LAST --method joint",
        ("'source-only', not of 'joint'",),
    ),
    "scores-into-a-file": (nothing, "validate --ckpt_path LAST --out TOY", ("cannot write to", "File exists")),
    "test-of-no-batches": (
        nothing,
        "test --ckpt_path LAST --trainer.limit_test_batches 0",
        ("--trainer.limit_test_batches 0 leaves nothing to test",),
    ),
    "validate-no-batches": (
        nothing,
        "validate --ckpt_path LAST --trainer.limit_val_batches 0",
        ("--trainer.limit_val_batches 0 leaves nothing to validate",),
    ),
    "data-of-other-classes": (
        nothing,
        "test --ckpt_path LAST --data minifaces",
        ("trained on other classes: class 0 is 'sky'", "'background'"),
    ),
    "checkpoint-as-photographs": (
        photos,
        "predict --ckpt_path LAST --input LAST --out out",
        ("last.ckpt: expected a folder, or an image of type .jpg",),
    ),
    "photograph-as-checkpoint": (
        photos,
        "predict --ckpt_path photos/000.png --input photos --out out",
        ("photos/000.png is not a checkpoint",),
    ),
    "photographs-in-the-working-directory": (
        photos,
        "predict --ckpt_path LAST --input '' --out out",
        ("--out out lies in --input .",),
    ),
    "gpu-that-is-absent": (photos, f"{PREDICT} --out out --device cuda:99", ("device cuda:99 is not available",)),
    "one-number-as-size": (photos, f"{PREDICT} --out out --size 32", ("--size: expected 2 arguments",)),
    "size-of-nothing": (photos, f"{PREDICT} --out out --size 0 4", ("--size at least 1",)),
    "opaque-beyond-one": (photos, f"{PREDICT} --out out --overlay_alpha nan", ("--overlay_alpha must be in [0, 1]",)),
    "seven-bits": (photos, f"{PREDICT} --out out --image_bits 7", ("--image_bits 7: expected 8 to 16",)),
    "method-that-generates-nothing": (
        nothing,
        "annotate --ckpt_path LAST --count 1 --out out",
        ("'source-only', which generates nothing", "'gradient-annotator'"),
    ),
    "no-images-to-generate": (
        nothing,
        "annotate --ckpt_path LAST --count 0 --out out",
        ("--count 0: expected 1 or more",),
    ),
    "folds-without-checkpoints": (run_without_checkpoints, "folds --run run", ("no checkpoint in run/checkpoints",)),
    "rows-of-nothing": (nothing, "compare --rows '' --out out", ("unknown method ''", "metapix")),
    "row-twice": (nothing, "compare --rows joint,joint --out out", ("rows joint,joint: each one once",)),
    "seed-twice": (nothing, "compare --rows joint --seeds 0,0 --out out", ("seeds 0,0: each one once",)),
    "seeds-of-words": (
        nothing,
        "compare --rows joint --seeds a --out out",
        ("expected numbers and ranges such as 0-4",),
    ),
    "compare-into-a-file": (nothing, "compare --rows joint --out TOY", ("cannot write to", "choose another folder")),
    "variant-without-a-colon": (
        nothing,
        "compare --rows a --variant 'a joint' --out out",
        ("expected 'NAME: METHOD OPTIONS'",),
    ),
    "variant-with-one-quotation-mark": (
        nothing,
        'compare --rows a --out out --variant "a: joint --network.encoder \'x"',
        ("variant", "no closing quotation"),
    ),
    "row-with-a-seed": (
        nothing,
        "compare --rows joint --out out -- --seed_everything 3",
        ("every run is given its own",),
    ),
    "prepare-of-an-unknown-set": (
        nothing,
        "data convert cats --root . --out out",
        ("invalid choice: 'cats'", "'cat16'"),
    ),
    "prepare-from-another-folder": (
        nothing,
        "data convert cat16 --root . --out out",
        ("cat_processed does not exist; expected the folder",),
    ),
    "bench-of-an-unknown-row": (nothing, "bench bilevel --rows fast", ("unknown row 'fast'", "metapix/fused")),
    "bench-of-an-unknown-encoder": (
        nothing,
        "bench bilevel --encoder resnt18",
        ("unknown encoder 'resnt18'; did you mean 'resnet18'?",),
    ),
    "bench-written-to-a-folder": (nothing, "bench bilevel --json .", ("cannot write to .: Is a directory",)),
    "bench-figure-of-text": (nothing, "bench bilevel --figure a.txt", ("--figure a.txt", ".png, .pdf, .svg")),
    # Values of options
    "height-of-zero": (nothing, f"{FIT} --data.size 0 256", ("--data.size (height, width) 0: expected 1 or more",)),
    "size-with-an-x": (nothing, f"{FIT} --data.size 32x32", ("expected two numbers, height width, found '32x32'",)),
    "images-of-ten-gigapixels": (
        nothing,
        f"{FIT} --data.size 100000 100000",
        ("out of memory; lower --data.batch_size",),
    ),
    "labels-below-zero": (nothing, f"{FIT} --data.target_labels -3", ("--data.target_labels -3", "use 1 to 4")),
    "shares-swapped": (
        nothing,
        f"{FIT} --data.crop_scale 1 0.5",
        ("--data.crop_scale 1.0 0.5: expected the smallest",),
    ),
    "crop-larger-than-the-image": (
        nothing,
        f"{FIT} --data.crop_size 64 64",
        ("does not fit", "--data.source_size larger"),
    ),
    "jitter-without-bounds": (nothing, f"{FIT} --data.color_jitter inf", ("--data.color_jitter", "'inf'")),
    "runs-in-proc": (nothing, f"{FIT} --runs /proc/x", ("cannot write to /proc/x/joint/toy", "--runs")),
    "runs-of-an-unset-variable": (nothing, f"{FIT} --runs ''", ("--runs is empty", "--runs .")),
    "name-of-two-lines": (nothing, f"{FIT} --name 'a\nb'", (r"--name 'a\nb'", "without '/' or line breaks")),
    "name-of-300-letters": (nothing, f"{FIT} --name {'x' * 300}", ("up to 200 bytes",)),
    "name-with-a-bell": (nothing, f"{FIT} --data.name 'a\ab'", (r"--data.name 'a\x07b'",)),
    "learning-rate-of-nan": (nothing, f"{FIT} --optimizer.lr nan", ("--optimizer.lr: expected float, found 'nan'",)),
    "negative-head": (
        nothing,
        f"{FIT} --optimizer.head_lr_factor -1",
        ("--optimizer.head_lr_factor -1.0: expected 0 or more",),
    ),
    "home-of-nobody": (
        nothing,
        f"{FIT} --data.root ~nobody-at-all",
        ("--data.root ~nobody-at-all: there is no such user",),
    ),
    "root-is-a-file": (nothing, f"{FIT} --data.root TOY", ("toy.yaml is not a folder",)),
    # The trainer
    "precision-of-foo": (nothing, f"{FIT} --trainer.precision foo", ("--trainer.precision", "bf16-mixed", "'foo'")),
    "half-precision-weights": (
        nothing,
        f"{FIT} --trainer.precision bf16-true",
        ("rounds their steps away; use bf16-mixed",),
    ),
    "strategy-of-foo": (nothing, f"{FIT} --trainer.strategy foo", ("invalid strategy name", "ddp")),
    "strategy-of-gpus": (nothing, f"{FIT} --trainer.strategy fsdp", ("--trainer:", "requires a GPU")),
    "no-devices": (nothing, f"{FIT} --trainer.devices 0", ("--trainer:", "devices='0'")),
    "time-of-never": (nothing, f"{FIT} --trainer.max_time never", ("days:hours:minutes:seconds",)),
    "nodes-that-nobody-starts": (nothing, f"{FIT} --trainer.num_nodes 3", ("nothing says where", "torchrun or srun")),
    "callback-that-is-a-function": (
        nothing,
        f"{FIT} --trainer.callbacks os.path.join",
        ("--trainer.callbacks", "os.path.join"),
    ),
    # Networks and weights
    "decoder-of-one-block": (
        nothing,
        f"{FIT} --network.options '{{decoder_channels: [16]}}'",
        ("cannot build unet on tu-test_resnet", "decoder_channels"),
    ),
    "decoder-of-no-channels": (
        nothing,
        f"{FIT} --network.options '{{decoder_channels: [0, 16, 8, 8, 8]}}'",
        ("unet on tu-test_resnet with --network.options", "does not work"),
    ),
    "option-that-is-a-number": (
        nothing,
        f"{FIT} --network.options '{{1: 2}}'",
        ("1 is no name of an option of unet",),
    ),
    "timm-has-no-such-network": (nothing, f"{FIT} --network.encoder tu-resnet999", ("Unknown model (resnet999)",)),
    "timm-has-no-such-weights": (
        nothing,
        f"{FIT} --network.encoder_weights imagnet",
        ("imagnet", "tu-test_resnet has imagenet"),
    ),
    "weights-of-another-encoder": (
        weights({"conv1.weight": torch.zeros(3, 3)}),
        f"{FIT} --network.encoder_checkpoint weights.pt",
        ("not a state dict of the encoder 'tu-test_resnet'", "is missing"),
    ),
    "weights-that-are-a-list": (
        weights([1, 2]),
        f"{FIT} --network.encoder_checkpoint weights.pt",
        ("expected names and tensors alone",),
    ),
    "weights-that-are-a-network": (
        weights(torch.nn.Linear(1, 1)),
        f"{FIT} --network.encoder_checkpoint weights.pt",
        ("weights.pt is not a state dict", "more than tensors"),
    ),
    "start-from-a-dangling-link": (
        link("old.ckpt", "nowhere"),
        f"{FIT} --network.initial_checkpoint old.ckpt",
        ("no checkpoint at old.ckpt",),
    ),
    "checkpoint-of-an-unknown-method": (
        spoiled(lambda content: content["segzoo"].update(method="pixmeta")),
        "test --ckpt_path bad.ckpt",
        ("unknown method 'pixmeta'",),
    ),
    "checkpoint-of-broken-options": (
        spoiled(lambda content: content["segzoo"].update(config={"data": {1: 2}})),
        "test --ckpt_path bad.ckpt",
        ("the configuration in bad.ckpt: data: the key 1 is no name",),
    ),
    "checkpoint-of-an-earlier-version": (
        spoiled(lambda content: content["segzoo"].update(config="model: {lr: 1}")),
        "test --ckpt_path bad.ckpt",
        ("bad.ckpt is of version", "its weights alone, as --network.initial_checkpoint of a new run"),
    ),
    # YAML
    "pipe-as-configuration": (pipe("own.yaml"), f"{FIT} --config own.yaml", ("own.yaml: it is a named pipe",)),
    "socket-as-configuration": (listening, f"{FIT} --config own.yaml", ("own.yaml: it is a named pipe or a socket",)),
    "zeros-as-configuration": (nothing, f"{FIT} --config /dev/zero", ("/dev/zero: it is larger than 1 MiB",)),
    "configuration-that-links-to-itself": (link("a.yaml", "a.yaml"), f"{FIT} --config a.yaml", ("Too many levels",)),
    "checkpoint-as-data": (nothing, "fit --method joint --data LAST", ("unknown data", "minicity")),
    "address-as-configuration": (nothing, f"{FIT} --config http://x/y.yaml", ("cannot read the configuration http:",)),
    # Label spaces and class maps
    "spaces-that-extend-each-other": (
        lambda toy, run: (
            [
                Path(mine).write_text(f"{{name: x, extends: {other}, keep: [sky, road]}}")
                for mine, other in (("own.yaml", "b.yaml"), ("b.yaml", "own.yaml"))
            ]
            and None
        ),
        OWN,
        ("b.yaml: extends 'own.yaml', which extends this one",),
    ),
    "space-that-keeps-nothing": (
        text("{name: x, extends: cityscapes, keep: []}"),
        OWN,
        ("label space 'x' has 0 classes",),
    ),
    "colour-of-fractions": (space(classes={"a": [0.5, 1, 2], "b": [1, 2, 3]}), OWN, ("'a' is [0.5, 1, 2]", "0 to 255")),
    "colour-by-name": (space(classes={"a": "red", "b": [1, 2, 3]}), OWN, ("the colour of 'a' is 'red'",)),
    "class-of-two-lines": (
        space(classes={"a\nb": [1, 2, 3], "b": [3, 3, 3]}),
        OWN,
        (r"the class name 'a\nb'", "line breaks"),
    ),
    "class-without-a-name": (space(classes={"": [1, 2, 3], "b": [3, 3, 3]}), OWN, ("the class name '' is empty",)),
    "256-classes": (
        space(classes={f"c{i}": [i, 1, 7] for i in range(256)}),
        OWN,
        ("has 256 classes, expected 1 to 255",),
    ),
    "subset-of-nothing": (space(subsets={"things": []}), OWN, ("subset 'things' is []", "one class or more")),
    "class-twice-in-a-subset": (space(subsets={"things": ["car", "car"]}), OWN, ("subset 'things'", "each one once")),
    "raw-id-as-text": (space(maps={"m": {"zero": "sky"}}), OWN, ("map 'm': unknown class 'zero'",)),
    "raw-id-below-zero": (space(maps={"m": {-1: "sky"}}), OWN, ("map 'm': raw id -1",)),
    "map-without-entries": (
        space(maps={"m": {}}),
        f"{OWN} --data.source.class_map m",
        ("map 'm': it is empty",),
    ),
    # Folders, images and masks
    "blocks-of-two": (nothing, f"{CUT} '[1, 1, 0]'", ("blocks [1.0, 1.0, 0.0]", "sum to 1")),
    "gap-larger-than-all": (
        nothing,
        f"{CUT} '[0.5, 0.25, 0.25]' --data.target.gap 50",
        ("4 frames are too few", "smaller gap"),
    ),
    "split-of-another-name": (nothing, f"{FIT} --data.target.split_folders '{{tests: val}}'", ("found 'tests'",)),
    "mask-too-many": (
        data(lambda d: save(d / "syn/mask/999.png", np.zeros((24, 32)))),
        COPY,
        ("syn/mask/999.png has no image",),
    ),
    "mask-of-colours": (
        data(lambda d: save(d / "syn/mask/000.png", np.full((24, 32, 3), (128, 64, 128)))),
        COPY,
        ("syn/mask/000.png holds colours (1 of them: 128 64 128", "set class_map to palette"),
    ),
    "mask-turned": (
        data(lambda d: save(d / "syn/mask/000.png", np.zeros((32, 24)))),
        COPY,
        ("24x32", "both must agree"),
    ),
    "image-cut-off": (
        data(lambda d: truncated(d / "real/test/image/000.png")),
        COPY,
        ("real/test/image/000.png", "truncated"),
    ),
    "image-that-is-a-pointer": (
        data(lambda d: (d / "syn/image/000.png").write_text("version https://git-lfs.github.com/spec/v1\n")),
        COPY,
        ("cannot read the image data/syn/image/000.png",),
    ),
    "image-is-a-dangling-link": (
        data(lambda d: another_file(d / "syn/image/000.png", "gone.png")),
        COPY,
        ("syn/image/000.png",),
    ),
    "folder-is-a-file": (
        data(lambda d: (shutil.rmtree(d / "syn/mask"), (d / "syn/mask").touch())),
        COPY,
        ("data/syn/mask is not a folder",),
    ),
    "folder-that-links-to-itself": (
        data(lambda d: (shutil.rmtree(d / "syn/mask"), (d / "syn/mask").symlink_to("mask"))),
        COPY,
        ("data/syn/mask does not exist",),
    ),
    "mask-of-two-lines": (
        data(lambda d: (d / "syn/mask/000.png").rename(d / "syn/mask/00\n0.png")),
        COPY,
        ("data/syn/image/000.png has no mask",),
    ),
}
