#!/usr/bin/env python3
"""Makes views from the side of faces that are seen from the front, with a simple shape of a head.

    profiles.py FACES -o SHEET.png [--count 12] [--seed 1]

Training crops hold few faces that look to the side. Here an aligned 112x112 crop is laid over a smooth
relief of a head (an ellipsoid with brow, eyes, nose, lips and chin, sizes drawn anew for every face), the
head is turned, and each ray of the new view takes the colour of the first point of the relief that it meets, so
that the nose or the cheek hides what lies behind. Then the five landmarks, which were turned too, are
aligned again, as for any other crop. The parts that a crop does not show (ears, the hair behind them) are
extrapolated from its borders. FACES is a folder with train.rec and train.idx; SHEET shows some of the results.

Runs on any device of PyTorch; the same generator gives the same views. Needs torch, numpy and pillow.
"""
import argparse
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from records import pixels, read_images

SIZE = 112
# Eyes, tip of the nose, corners of the mouth of an aligned crop.
LANDMARKS = ((38.29, 51.70), (73.53, 51.50), (56.03, 71.74), (41.55, 92.37), (70.73, 92.20))
# The axis of the neck, about which a head turns: across, down, and behind the eyes. A pixel is 1.8 mm.
MIDDLE = (56.0, 72.0, -30.0)
# The relief at the heights DOWN: pixels before the plane of the eyes along the middle, without the nose, and half the
# width of the head.
DOWN = (-20, 0, 14, 28, 42, 50, 60, 72, 82, 92, 101, 110, 120, 132)
RIDGE = (-16, -3, 3, 7, 9, 6, 5, 8, 9, 9.5, 7.5, 9, 7, -4)
HALF_WIDTH = (35, 38, 40, 40.5, 40, 39.5, 39, 38, 36, 33, 29, 24, 17, 12)
# Pixels from the middle back to the sides of the head, and the slope of the surface beside it.
SIDE, WALL = 50.0, 2.2
# A ray is followed from NEAR to FAR, in pixels before the axis, in steps of STEP.
NEAR, FAR, STEP = 66.0, -48.0, 1.5
FINE = 2  # points of the relief per pixel
NUMBERS = 9  # sizes drawn for a head


def line(knots, values, at):
    """A smooth line through the knots, at each of `at`."""
    # Straight between knots, then smoothed: a head has no corners.
    fine = np.interp(np.arange(knots[0], knots[-1] + 1), knots, values)
    kernel = np.exp(-0.5 * (np.arange(-9, 10) / 3.5) ** 2)
    fine = np.convolve(np.pad(fine, 9, mode="edge"), kernel / kernel.sum(), "valid")
    return np.interp(at, np.arange(knots[0], knots[-1] + 1), fine)


class Profiles:
    """Turns faces [n, 3, 112, 112]; `random` draws angles, sizes of heads, light and the background."""

    def __init__(self, device="cpu"):
        self.device = torch.device(device)
        places = (np.arange(SIZE * FINE) + 0.5) / FINE - 0.5
        tensor = lambda values: torch.tensor(np.asarray(values), dtype=torch.float32, device=self.device)
        self.ridge = tensor(line(DOWN, RIDGE, places))[:, None]
        self.half_width = tensor(line(DOWN, HALF_WIDTH, places))[:, None]
        self.down = tensor(places)[:, None]
        self.across = tensor(places - MIDDLE[0])[None]
        self.landmarks = tensor(LANDMARKS)
        pixel = torch.arange(SIZE, dtype=torch.float32, device=self.device)
        self.y, self.x = torch.meshgrid(pixel, pixel, indexing="ij")

    def relief(self, sizes):
        """Height [n, 224, 224] in pixels before the eyes' plane, for sizes [n, NUMBERS] about 0."""
        size = lambda index, spread: (spread * sizes[:, index]).exp()[:, None, None]
        bump = lambda x, y, wide, high: torch.exp(-(((self.across.abs() - x) / wide) ** 2) - ((self.down - y) / high) ** 2)
        width = self.half_width * size(0, 0.05)
        share = (self.across / width).abs()
        # An ellipse across, and a wall beyond the side of the head.
        inside = torch.sqrt((1 - share.clamp(max=0.985) ** 2))
        beside = (share - 0.985).clamp(min=0) * width * WALL
        side = SIDE * size(1, 0.10)
        height = self.ridge * size(2, 0.15) + side * (inside - 1) - beside
        # The nose: from between the eyes to the tip, then quickly back; wider below.
        tip, root = 73.0, 49.0
        along = ((self.down - root) / (tip - root)).clamp(0, 1)
        below = torch.exp(-((self.down - tip).clamp(min=0) / 5.0) ** 2)
        wide = (3.2 + 4.2 * along) * size(3, 0.12)
        nose = along ** 1.15 * below * torch.exp(-((self.across / wide) ** 2))
        wings = bump(7.0, 74.0, 4.5, 5.0)
        height = height + 11.5 * size(4, 0.17) * nose + 3.0 * wings
        height = height - 3.5 * size(5, 0.25) * bump(17.6, 51.5, 8.0, 5.5) + 1.2 * bump(17.6, 51.5, 4.5, 3.0)
        height = height + 2.0 * size(6, 0.3) * bump(17.0, 41.0, 11.0, 4.0)
        height = height + 1.6 * size(7, 0.3) * bump(0.0, 92.0, 12.0, 6.0)
        return height + 2.5 * size(8, 0.4) * bump(24.0, 68.0, 9.0, 9.0)

    def at(self, relief, x, y):
        """Heights at places [n, ...] of the crop, between the places of the relief."""
        count = len(relief)
        grid = torch.stack([(x * 2 + 1) / SIZE - 1, (y * 2 + 1) / SIZE - 1], -1).reshape(count, -1, 1, 2)
        height = F.grid_sample(relief[:, None], grid, padding_mode="border", align_corners=False)
        return height.reshape(x.shape)

    def turn(self, faces, yaw, pitch, sizes, moved, light, behind):
        """The faces turned by yaw and pitch [n] in radians (a positive yaw shows the left side of the
        picture), with heads of `sizes`, landmarks off by `moved` [n, 5, 2] pixels, light from [n, 3], its length its
        share, and before `behind` [n, 3, 112, 112]."""
        count = len(faces)
        relief = self.relief(sizes)
        sy, cy, sp, cp = (f(a)[:, None] for a in (yaw, pitch) for f in (torch.sin, torch.cos))
        zero = torch.zeros_like(sy)
        # Rows: across, down and towards the camera, each a direction in the head.
        axes = torch.stack([torch.cat([cy, zero, sy], 1), torch.cat([sp * sy, cp, -sp * cy], 1),
                            torch.cat([-cp * sy, sp, cp * cy], 1)], 1)
        middle = torch.tensor(MIDDLE, device=self.device)

        # The landmarks in the new view, and the similarity that aligns them again.
        x, y = (self.landmarks[None, :, i].expand(count, 5) for i in (0, 1))
        points = torch.stack([x, y, self.at(relief, x, y)], 2) - middle
        seen = torch.einsum("nij,nkj->nki", axes, points)[:, :, :2] + moved
        seen, home = torch.view_as_complex(seen.contiguous()), torch.view_as_complex(self.landmarks.clone())[None]
        seen_mean, home_mean = seen.mean(1, keepdim=True), home.mean(1, keepdim=True)
        scale = ((seen - seen_mean).conj() * (home - home_mean)).sum(1) / (seen - seen_mean).abs().square().sum(1)
        scale = scale[:, None, None]
        place = torch.complex(self.x, self.y)[None]
        place = (place - home_mean[:, :, None]) / scale + seen_mean[:, :, None]

        # Along each ray from the camera to the first point below the relief.
        across, down, near = (axes[:, i, :, None, None] for i in range(3))
        start = (across * place.real[:, None] + down * place.imag[:, None]) + middle[:, None, None]
        flat, fine = relief.flatten(1), SIZE * FINE
        gap_before = torch.full_like(place.real, 1e3)
        hit = torch.full_like(place.real, math.nan)
        for step in range(int((NEAR - FAR) / STEP) + 1):
            depth = NEAR - step * STEP
            at = start + depth * near
            column = ((at[:, 0] + 0.5) * FINE).long().clamp_(0, fine - 1)
            row = ((at[:, 1] + 0.5) * FINE).long().clamp_(0, fine - 1)
            gap = at[:, 2] - flat.gather(1, (row * fine + column).flatten(1)).reshape(column.shape)
            new = (gap <= 0) & hit.isnan()
            between = depth + STEP * (-gap / (gap_before - gap).clamp(min=1e-3)).clamp(0, 1)
            hit = torch.where(new, between, hit)
            gap_before = gap
        missed = hit.isnan()
        at = start + torch.where(missed, FAR, hit)[:, None] * near
        x, y = at[:, 0], at[:, 1]
        grid = torch.stack([x, y], 3) * 2 / (SIZE - 1) - 1
        turned = F.grid_sample(faces, grid, padding_mode="border", align_corners=True)

        # Light from one side, by the slope of the relief; surfaces that face the camera keep their brightness.
        slope_x, slope_y = self.at(relief, x + 1, y) - self.at(relief, x - 1, y), self.at(relief, x, y + 1) - self.at(relief, x, y - 1)
        normal = F.normalize(torch.stack([-slope_x / 2, -slope_y / 2, torch.ones_like(x)], 1), dim=1)
        shade = 1 + (normal * light[:, :, None, None]).sum(1) - light[:, 2, None, None]
        turned = turned * shade.clamp(0.35, 1.5)[:, None]

        # A soft edge between the head and what is behind it.
        cover = F.avg_pool2d((~missed).float()[:, None], 3, 1, 1, count_include_pad=False)
        cover = torch.where(missed[:, None], 0.0, cover)
        return (turned * cover + behind * (1 - cover)).clamp(0, 255)

    def draw(self, faces, random, least_deg=20.0, most_deg=82.0):
        """The faces [n, 3, 112, 112] turned at random, and the angles by which."""
        count = len(faces)
        uniform = lambda *shape, low=0.0, high=1.0: low + (high - low) * torch.rand(*shape, generator=random, device=self.device)
        normal = lambda *shape: torch.randn(*shape, generator=random, device=self.device)
        sign = torch.where(uniform(count) < 0.5, -1.0, 1.0)
        yaw = sign * uniform(count, low=math.radians(least_deg), high=math.radians(most_deg))
        pitch = (0.2 * normal(count)).clamp(-0.5, 0.5)
        sizes = normal(count, NUMBERS).clamp(-2, 2)
        # The less a detector sees of a landmark, the less accurate it is.
        moved = normal(count, 5, 2) * (0.7 + 1.3 * (1 - yaw.cos()))[:, None, None]
        light = F.normalize(normal(count, 3), dim=1) * uniform(count, 1, high=0.45)
        # The background: the border of a picture (its own or another's), stretched and blurred, or one colour.
        other = torch.where((uniform(count) < 0.5)[:, None, None, None], faces, faces.roll(1, 0))
        left, right = other[:, :, :, :10].mean(3, keepdim=True), other[:, :, :, -10:].mean(3, keepdim=True)
        along = torch.linspace(0, 1, SIZE, device=self.device)
        behind = left + (right - left) * along
        plain = other[:, :, :12].mean((2, 3), keepdim=True)
        behind = torch.where((uniform(count) < 0.3)[:, None, None, None], plain, behind)
        behind = behind * uniform(count, 1, 1, 1, low=0.7, high=1.3)
        behind = F.avg_pool2d(F.pad(behind, (0, 0, 4, 4), mode="replicate"), (9, 1), 1).clamp(0, 255)
        return self.turn(faces, yaw, pitch, sizes, moved, light, behind), yaw, pitch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--count", type=int, default=12, help="faces; each is shown as it is and at six angles")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    images = read_images(options.faces)
    chosen = np.random.default_rng(options.seed).choice(len(images), options.count, replace=False)
    faces = torch.from_numpy(np.stack([pixels(images[i]) for i in chosen])).permute(0, 3, 1, 2).contiguous()
    profiles, random = Profiles(), torch.Generator().manual_seed(options.seed)
    views = [faces]
    for low in (20, 40, 55, 65, 75, 80):
        views.append(profiles.draw(faces, random, low, low + 5)[0])
    sheet = torch.stack(views, 1).permute(0, 3, 1, 4, 2).reshape(options.count * SIZE, len(views) * SIZE, 3)
    Image.fromarray(sheet.round().to(torch.uint8).numpy()).save(options.output)


if __name__ == "__main__":
    main()
