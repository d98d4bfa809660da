#!/usr/bin/env python3
"""Draws the sample video, its truth file and the stills to enrol from. No person in it exists.

    generate.py --crops CROPS.npy --labels labels.csv --model MODEL.npz [--only stills|frames:0,50,99]

CROPS.npy: uint8 [n,112,112,3] RGB, five-point aligned; labels.csv: columns record, label, source_file.
Neither they nor MODEL.npz (the fitted model, made when it does not exist) belong in the repository.
Needs numpy, opencv, pillow and the ffmpeg program.
"""
import argparse
import json
import os
import subprocess
import wave

import cv2
import numpy as np

from face_model import SIZE, FaceModel, select

HERE = os.path.dirname(os.path.abspath(__file__))
W, H, FPS, FRAMES, CUT = 768, 432, 25, 350, 200
UNIT = 2  # pixels of a head layer per unit; one unit is one pixel of the 112x112 crop
LEFT, TOP, WIDE, TALL = 54, 62, 220, 250  # the head layer spans x -LEFT..WIDE-LEFT, y -TOP..TALL-TOP
YY, XX = (np.mgrid[: TALL * UNIT, : WIDE * UNIT].astype(np.float32) + 0.5) / UNIT - 0.5
XX, YY = XX - LEFT, YY - TOP


class Person:
    def __init__(self, name, seed, strength, hair, style, shirt, phase):
        self.name, self.seed, self.strength = name, seed, strength
        self.hair, self.style, self.shirt, self.phase = np.array(hair, np.float32), style, np.array(shirt, np.float32), phase


PEOPLE = {
    "Ada": Person("Ada", 30, 1.2, (34, 25, 22), "long", (150, 40, 52), 1),
    "Boris": Person("Boris", 15, 1.2, (120, 112, 104), "short", (46, 66, 98), 2),
    "Chloé": Person("Chloé", 42, 1.2, (182, 134, 80), "bob", (52, 104, 88), 3),
    "stranger": Person("unknown", 82, 1.2, (24, 20, 19), "crop", (190, 168, 128), 4),
}


# ---- drawing -------------------------------------------------------------------------------------

def ellipse(cx, cy, rx, ry, x=XX, y=YY):
    """Roughly the signed distance (units, positive inside) to an ellipse."""
    return (1 - np.hypot((x - cx) / rx, (y - cy) / ry)) * min(rx, ry)


def cover(d, soft=1.0):
    t = np.clip(d / soft + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def noise(shape, sigma, seed):
    """Smooth Gaussian noise of unit deviation."""
    n = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape).astype(np.float32), (0, 0), sigma)
    return n / n.std()


def strands(seed, waves):
    """Hair texture of about unit deviation: fine noise that runs down from above the crown."""
    x, y = XX - 56, YY + 48
    r = np.hypot(x * 0.9, y)
    a = np.arctan2(x, y.clip(1, None)) + waves * (0.030 * np.sin(r / 13 + 1.3 * np.sin(x / 11)) + 0.012 * np.sin(r / 6 + x / 5))
    n = np.random.default_rng(seed).standard_normal((1400, 40)).astype(np.float32)
    blur = lambda along, across: (lambda m: m / m.std())(cv2.GaussianBlur(n[:, ::-1] if across > 3 else n, (0, 0), sigmaX=along, sigmaY=across))
    n = 0.75 * blur(1.5, 1.0) + 0.5 * blur(2.5, 2.6) + 0.45 * blur(5, 8)
    return cv2.remap(n, (r / 9).clip(0, 39).astype(np.float32), ((a / 3.3 + 0.5) * 1399).clip(0, 1399).astype(np.float32), cv2.INTER_CUBIC)


def hair_layers(p):
    """(colour, alpha of the hair behind, alpha of the hair in front), in the mean face's shape."""
    s = strands(p.seed + 77, 1.0 if p.style in ("long", "bob") else 0.3)
    wisp = 0.5 * s + 0.9 * noise(XX.shape, 7, p.seed)
    top = np.maximum(ellipse(56, 34, 47.5, 52), ellipse(56, 28, 42, 46))
    if p.style == "long":
        back = np.maximum(ellipse(56, 62, 55, 84), np.minimum(ellipse(56, 104, 60, 86), 172 - YY + 3 * np.sin(XX / 5)))
        front = np.minimum(np.minimum(np.maximum(top, ellipse(56, 72, 51, 92)), -ellipse(60, 80, 36, 69)), np.maximum(112 - YY, np.abs(XX - 56) - 34))
    elif p.style == "bob":
        back = np.maximum(ellipse(56, 48, 53, 72), np.minimum(ellipse(56, 74, 57, 66), 121 - YY + 2 * np.sin(XX / 4)))
        front = np.minimum(np.maximum(top, np.minimum(ellipse(56, 66, 51, 86), 112 - YY + 3 * np.sin(XX / 5))), -np.maximum(ellipse(51, 82, 35, 70), ellipse(66, 86, 29, 64)))
    elif p.style == "short":
        back = np.minimum(top, 50 - YY)
        front = np.minimum(np.minimum(top, 58 - YY), -np.maximum(ellipse(56, 82, 39, 78), ellipse(42, 50, 16, 44)))
    else:
        back = np.minimum(ellipse(56, 34, 45, 45), 50 - YY)
        front = np.minimum(np.minimum(np.maximum(ellipse(56, 35, 45.5, 46), ellipse(56, 30, 41, 42)), 54 - YY), -np.maximum(ellipse(56, 84, 40.5, 74), np.minimum(20 - np.abs(XX - 56), YY - 13)))
    light = np.exp(-((np.hypot((XX - 48) * 0.8, YY - 34) - 36) / 12) ** 2) * cover(40 - YY, 40)
    shade = 0.86 + 0.085 * s + 0.30 * light * (0.7 + 0.3 * s) - 0.30 * ((YY - 20) / 110).clip(0, 1) - 0.16 * np.exp(-((front - 1) / 3.5).clip(0, None))
    colour = (p.hair * shade[..., None].clip(0.2, 2) + 12 * light[..., None]).clip(0, 255)
    return cv2.GaussianBlur(colour, (0, 0), 0.7), cover(back + 0.8 * wisp, 2.6), cover(front + wisp, 4.0 if p.style in ("short", "crop") else 2.6)


def body_layer(p, skin):
    """Neck, shoulders and chest at one pixel per unit: RGBA over x -104..216, y 60..760."""
    y, x = np.mgrid[60:760, -104:216].astype(np.float32)
    dx = np.abs(x - 56)
    broad = 1.24 if p.style in ("short", "crop") else 1.04
    u = dx / broad
    line = 124 + 0.12 * u + 17 * (u / 80) ** 2 + 46 * ((u - 76) / 24).clip(0, None) ** 2.4
    torso = np.minimum(y - line, 104 + 0.03 * (y - 150) - u)
    neck = np.minimum(25 * broad ** 0.6 + ((y - 116) / 7).clip(0, None) ** 2 - dx, y - 76)
    collar = ellipse(56, 121, 30 * broad ** 0.6, 20 if p.style != "long" else 33, x, y)
    fold = noise(x.shape, 14, p.seed + 5) + 0.5 * noise(x.shape, 5, p.seed + 6)
    arm = np.exp(-((u - 70 - 0.02 * (y - 170)) / 2.5) ** 2) * ((y - 185) / 40).clip(0, 1)
    shade = 0.90 + 0.022 * fold - 0.26 * (dx / 130) ** 2 + 0.08 * np.exp(-((x - 26) / 40) ** 2) - 0.12 * np.exp(-np.abs(torso) / 5) - 0.22 * arm
    cloth = p.shirt * shade[..., None].clip(0.2, 1.4)
    under = 1 - 0.52 * np.exp(-((y - 111) / 13).clip(0, None) ** 1.3) - 0.25 * (dx / 34).clip(0, 1) ** 3
    flesh = skin * (0.98 * under)[..., None]
    a = cover(torso - 2 * (collar > 0), 1.6)
    inside = cover(collar + 0.3, 1.5)[..., None]
    rgb = flesh * inside + cloth * (1 - inside)
    rim = np.exp(-(collar / 2.0) ** 2)[..., None] * (torso > 0)[..., None] * 0.25
    rgb = rgb * (1 - rim)
    only_neck = cover(neck, 1.6) * (y < 150)
    rgb = np.where((a < 0.5)[..., None] & (only_neck > a)[..., None], flesh, rgb)
    return np.dstack([rgb.clip(0, 255), 255 * np.maximum(a, only_neck)]).astype(np.float32)


def spread(img, mask):
    """Carries the colours inside the mask smoothly to everywhere else (fine to coarse)."""
    h, w = mask.shape
    mask = cv2.resize(mask, (w // 4, h // 4), interpolation=cv2.INTER_AREA)
    sums = cv2.resize(img, (w // 4, h // 4), interpolation=cv2.INTER_AREA) * mask[..., None]
    out, done = np.zeros_like(sums), np.zeros_like(mask)
    for sigma in (1, 2.5, 6, 15):
        near = cv2.GaussianBlur(mask, (0, 0), sigma)
        mean = cv2.GaussianBlur(sums, (0, 0), sigma) / np.maximum(near, 1e-4)[..., None]
        take = (1 - done) * np.clip(near * 5, 0, 1)
        out += mean * take[..., None]
        done += take
    out += (1 - done)[..., None] * mean
    return cv2.resize(out, (w, h), interpolation=cv2.INTER_CUBIC)


def over(dst, rgb, a):
    a = a[..., None]
    return dst * (1 - a) + rgb * a


def turn(x, yaw_deg, radius=50.0):
    """The new position of a point x units from the axis of a cylinder that is turned; points outside stay."""
    u = (x / radius).clip(-1, 1)
    angle = (np.arcsin(u) + np.deg2rad(yaw_deg)).clip(-np.pi / 2, np.pi / 2)
    return x + (radius * np.sin(angle) - u * radius) * (1 - u**4)


class Look:
    """The properties of a person that are the same in all frames."""

    def __init__(self, model, p):
        self.model, self.p = model, p
        self.neutral = model.identity(p.seed, p.strength)
        self.hair, self.behind, self.before = hair_layers(p)
        d = np.minimum(np.maximum(ellipse(56, 46, 42.5, 55), ellipse(56, 70, 37.5, 45.5)), 200)
        self.head = cover(d, 1.8)
        self.near = np.exp(-np.maximum(np.abs(XX - 55.5) - 56, np.abs(YY - 55.5) - 56).clip(0, None) / 25)
        self.edge = d
        self.low = cover(YY - 4, 36)  # turning the head is not visible at the crown
        self.grain = 1 + 0.012 * noise(XX.shape, 1.2, 3) + 0.010 * noise(XX.shape, 3, 4)
        self.face = cover(np.maximum(ellipse(56, 67, 35, 36), ellipse(56, 70, 31.5, 41)), 9)
        self.ears = cover(np.maximum(ellipse(13.5, 62, 6, 13), ellipse(98.5, 62, 6, 13)), 1.5) * (p.style in ("short", "crop"))
        cheeks = model.render(self.neutral, 1)[0][70:84, 30:82].reshape(-1, 3)
        self.body = body_layer(p, np.median(cheeks, 0))

    def head_layer(self, c, yaw_deg=0.0):
        """RGBA of the head, RGBA of the hair behind it, and the outline of the face (units) [48, 2]. The head
        is turned as if the face lay on a cylinder."""
        rgb, at, flow = self.model.render(c, UNIT)
        n = SIZE * UNIT
        full_at = np.stack(np.meshgrid(np.arange(WIDE * UNIT), np.arange(TALL * UNIT)), -1).astype(np.float32)
        x0, y0 = LEFT * UNIT, TOP * UNIT
        # Beyond the crop the shape changes as at its edge, less and less.
        move = np.ascontiguousarray(at - full_at[:n, :n])
        move = cv2.copyMakeBorder(move, y0, TALL * UNIT - n - y0, x0, WIDE * UNIT - n - x0, cv2.BORDER_REPLICATE)
        move *= self.near[..., None]
        full_at += cv2.GaussianBlur(move, (0, 0), 2)
        turned = np.dstack([(XX + (turn(XX - 56, -yaw_deg) + 56 - XX) * self.low + LEFT + 0.5) * UNIT - 0.5, (YY + TOP + 0.5) * UNIT - 0.5]).astype(np.float32)
        full_at = cv2.remap(full_at, turned, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        warp = lambda m: cv2.remap(m, full_at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        face, head, edge, before, behind, ears = map(warp, (self.face, self.head, self.edge.astype(np.float32), self.before, self.behind, self.ears))
        face *= cover(107 - YY, 7)  # the crop ends at the chin
        img = np.zeros((*face.shape, 3), np.float32)
        img[y0 : y0 + n, x0 : x0 + n] = rgb
        img = cv2.remap(img, turned, None, cv2.INTER_CUBIC)
        skin = spread(img, ((face > 0.9) & (YY > 60)).astype(np.float32))  # hair may hang into the forehead
        skin *= self.grain[..., None]
        crisp = img + 0.8 * (img - cv2.GaussianBlur(img, (0, 0), 1.6))
        skin_shaded = skin * (1 - 0.34 * np.exp(-(edge / 7.0).clip(0, None)))[..., None]
        out = over(np.zeros_like(img), skin_shaded * 0.84, ears)
        out = over(out, skin_shaded, head)
        # Glare on the visible part of the forehead is replaced by the skin around it.
        glare = np.clip(crisp.mean(2) / skin.mean(2).clip(1, None) * 5 - 4.9, 0, 1) * cover(44 - YY, 14)
        crisp = over(crisp, skin, cv2.GaussianBlur(glare, (0, 0), 3))
        out = over(out, crisp * self.grain[..., None], face)
        # The hair throws a soft shadow on the forehead.
        shadow = cv2.GaussianBlur(before, (0, 0), 7) * 0.38
        out *= (1 - shadow * (1 - before))[..., None]
        out = over(out, self.hair, before)
        a = 1 - (1 - ears) * (1 - head) * (1 - before)
        out /= np.maximum(a, 0.01)[..., None]
        ring = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        pts = np.stack([56 + 37 * np.cos(ring), 58 + 55 * np.sin(ring)], 1).astype(np.float32)
        f = cv2.remap(flow, pts[:, :1].copy(), pts[:, 1:].clip(0, SIZE - 1), cv2.INTER_LINEAR)[:, 0]
        pts += f
        pts[:, 0] = turn(pts[:, 0] - 56, yaw_deg) + 56
        return np.dstack([out.clip(0, 255), 255 * a]), np.dstack([self.hair * 0.62, 255 * behind]), pts

    def coefficients(self, t, amount=0.7, seed=0):
        """Face at t seconds: a smooth walk along the within-person directions."""
        c = self.neutral.copy()
        rng = np.random.default_rng(1000 * self.p.phase + seed)
        for basis, gain, count in ((self.model.motion, amount, 8), (self.model.light, 0.45 * amount, 4)):
            for j in range(count):
                f, ph = rng.uniform(0.12, 0.55, 3), rng.uniform(0, 2 * np.pi, 3)
                c += gain * float(np.sin(2 * np.pi * f * t + ph).sum() / 1.5) * basis[:, j]
        return c


def paste(frame, layer, m):
    """Blends an RGBA layer through the 2x3 matrix m (layer px -> frame px), without aliasing. Returns its alpha."""
    s = np.sqrt(abs(np.linalg.det(m[:, :2])))
    if s < 0.85:
        k = max(s * 1.15, 0.1)
        h, w = layer.shape[:2]
        nw, nh = max(1, round(w * k)), max(1, round(h * k))
        pre = layer.copy()
        pre[..., :3] *= pre[..., 3:] / 255
        pre = cv2.resize(pre, (nw, nh), interpolation=cv2.INTER_AREA)
        sx, sy = w / nw, h / nh
        m = m @ np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])
    else:
        pre = layer.copy()
        pre[..., :3] *= pre[..., 3:] / 255
    out = cv2.warpAffine(pre.astype(np.float32), m, (frame.shape[1], frame.shape[0]), flags=cv2.INTER_LINEAR if s < 0.85 else cv2.INTER_CUBIC)
    a = out[..., 3].clip(0, 255) / 255
    frame *= (1 - a)[..., None]
    frame += out[..., :3].clip(0, 255)
    return a


def draw_person(frame, look, c, x, y, scale, tilt_deg=0.0, yaw_deg=0.0, blur=0.0, tint=(1, 1, 1)):
    """Draws the person with the face's centre (56, 60) at (x, y), `scale` px per unit. Returns the outline of the
    face [48, 2] and the alpha of all that was drawn."""
    head, back, ring = look.head_layer(c, yaw_deg)
    a = np.deg2rad(tilt_deg)
    pivot = np.array([56.0, 118.0])
    r = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    centre = np.array([x, y]) - scale * (np.array([56.0, 60.0]) - pivot)  # where the pivot lands
    to = lambda origin, px: np.hstack([r / px, (centre + r @ (origin - pivot))[:, None]])
    mh = to(np.array([-LEFT, -TOP]) - 0.5 + 0.5 / UNIT, UNIT)
    still = np.array([[scale, 0, centre[0] - scale * (pivot[0] + 104)], [0, scale, centre[1] - scale * (pivot[1] - 60)]])
    canvas = np.zeros_like(frame)
    alpha = np.zeros(frame.shape[:2], np.float32)
    for layer, m in ((back, mh), (look.body, still), (head, mh)):
        part = paste(canvas, layer, m)
        alpha = alpha + part - alpha * part
    canvas *= np.array(tint, np.float32)
    if blur:
        canvas, alpha = cv2.GaussianBlur(canvas, (0, 0), blur), cv2.GaussianBlur(alpha, (0, 0), blur)
    frame *= (1 - alpha)[..., None]
    frame += canvas
    return centre + (ring - pivot) @ r.T, alpha


# ---- backgrounds ---------------------------------------------------------------------------------

BW, BH = 960, 480


def gradient(top, bottom, w=BW, h=BH):
    t = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(np.array(top, np.float32) * (1 - t) + np.array(bottom, np.float32) * t, (h, w, 3)))


def room():
    img = gradient((214, 196, 168), (176, 152, 124))
    rng = np.random.default_rng(5)
    for i in range(0, BW, 60):  # wallpaper
        cv2.rectangle(img, (i, 0), (i + 29, 372), tuple(float(v) for v in img[180, i] * 0.975), -1)
    cv2.rectangle(img, (0, 372), (BW, 384), (232, 222, 206), -1)
    cv2.rectangle(img, (0, 384), (BW, BH), (122, 92, 70), -1)
    # window with a hill and sky
    cv2.rectangle(img, (90, 40), (290, 262), (238, 232, 222), -1)
    sky = gradient((150, 190, 226), (222, 232, 236), 176, 198)
    cv2.ellipse(sky, (60, 220), (140, 80), 0, 0, 360, (126, 158, 112), -1, cv2.LINE_AA)
    cv2.ellipse(sky, (170, 230), (110, 66), 0, 0, 360, (104, 138, 98), -1, cv2.LINE_AA)
    img[52:250, 102:278] = sky
    cv2.rectangle(img, (187, 52), (193, 250), (238, 232, 222), -1)
    cv2.rectangle(img, (102, 148), (278, 153), (238, 232, 222), -1)
    # shelf with books
    for y in (112, 206):
        cv2.rectangle(img, (640, y), (900, y + 9), (112, 78, 54), -1)
        x = 650
        while x < 876:
            w, h = int(rng.integers(9, 20)), int(rng.integers(46, 72))
            col = np.array([(150, 60, 52), (62, 88, 112), (198, 166, 96), (88, 108, 84), (210, 200, 184), (92, 66, 92)][rng.integers(6)])
            cv2.rectangle(img, (x, y - h), (x + w, y - 1), tuple(float(v) for v in col * rng.uniform(0.8, 1.1)), -1)
            cv2.rectangle(img, (x, y - h + 8), (x + w, y - h + 10), tuple(float(v) for v in col * 1.25), -1)
            x += w + int(rng.integers(0, 4)) + (30 if rng.random() < 0.1 else 0)
    # picture: three bands of colour in a frame
    cv2.rectangle(img, (408, 70), (548, 180), (84, 62, 44), -1)
    cv2.rectangle(img, (418, 80), (538, 170), (236, 228, 206), -1)
    cv2.rectangle(img, (424, 86), (532, 112), (214, 120, 70), -1)
    cv2.rectangle(img, (424, 112), (532, 138), (62, 110, 122), -1)
    cv2.rectangle(img, (424, 138), (532, 164), (40, 62, 84), -1)
    # lamp
    cv2.line(img, (588, 384), (588, 170), (70, 58, 50), 4, cv2.LINE_AA)
    cv2.fillPoly(img, [np.array([(566, 128), (610, 128), (624, 176), (552, 176)])], (250, 232, 184), cv2.LINE_AA)
    img = cv2.GaussianBlur(img, (0, 0), 2.0)
    y, x = np.mgrid[:BH, :BW].astype(np.float32)
    img += 52 * np.exp(-(((x - 588) / 150) ** 2 + ((y - 160) / 120) ** 2))[..., None] * np.array([1, 0.86, 0.55])
    img += 34 * np.exp(-(((x - 190) / 200) ** 2 + ((y - 200) / 190) ** 2))[..., None] * np.array([0.8, 0.92, 1])
    img *= (1.02 - 0.35 * (((x - BW / 2) / BW) ** 2 + ((y - BH / 2) / BH) ** 2))[..., None]
    return img.clip(0, 255).astype(np.float32)


def evening():
    img = gradient((30, 38, 66), (74, 60, 78))
    rng = np.random.default_rng(9)
    for x in range(0, BW, 74):  # houses
        h = int(rng.integers(170, 380))
        base = np.array([34, 38, 58]) * rng.uniform(0.7, 1.25)
        cv2.rectangle(img, (x, BH - h), (x + 73, BH), tuple(float(v) for v in base), -1)
        for wy in range(BH - h + 14, BH - 20, 26):
            for wx in range(x + 10, x + 62, 20):
                if rng.random() < 0.34:
                    cv2.rectangle(img, (wx, wy), (wx + 9, wy + 13), (236, 190, 118), -1)
    img = cv2.GaussianBlur(img, (0, 0), 5)
    glow = np.zeros_like(img)
    for _ in range(46):  # lights out of focus
        c = np.array([(255, 190, 96), (255, 120, 70), (120, 180, 255), (255, 226, 170), (240, 90, 110)][rng.integers(5)], np.float32)
        d = np.zeros_like(img)
        cv2.circle(d, (int(rng.integers(BW)), int(rng.normal(300, 62))), int(rng.integers(7, 21)), tuple(float(v) for v in c * rng.uniform(0.16, 0.5)), -1, cv2.LINE_AA)
        glow += d
    img += cv2.GaussianBlur(glow, (0, 0), 1.4)
    return img.clip(0, 255).astype(np.float32)


# ---- the script ----------------------------------------------------------------------------------

def ease(t, a, b):
    u = np.clip((t - a) / (b - a), 0, 1)
    return u * u * (3 - 2 * u)


def cast(f):
    """Who is where in frame f: [(key, arguments of draw_person)], back to front."""
    t = f / FPS
    bob = lambda k, walk=0.0: 2.2 * walk * np.sin(2 * np.pi * 1.9 * t + k) + 1.6 * np.sin(2 * np.pi * 0.31 * t + 2 * k)
    tilt = lambda k: 3.2 * np.sin(2 * np.pi * 0.23 * t + k) + 1.6 * np.sin(2 * np.pi * 0.61 * t + 2.3 * k)
    look = lambda k: 6 * np.sin(2 * np.pi * 0.19 * t + 1.7 * k) + 4 * np.sin(2 * np.pi * 0.43 * t + k)
    out = []
    if f < CUT:
        # Chloé comes in from the right at the back, crosses behind Boris, stops between the two.
        if f >= 66:
            u = ease(f, 66, 172)
            out.append(("Chloé", dict(x=825 - 435 * u, y=92 + bob(3, 4 * u * (1 - u)) + 20 * ease(f, 140, 180), scale=0.64 + 0.06 * u, tilt_deg=tilt(3), yaw_deg=look(3) - 10 * 4 * u * (1 - u))))
        out.append(("Boris", dict(x=560 + 10 * np.sin(t * 0.7), y=208 + bob(1), scale=0.98, tilt_deg=tilt(1), yaw_deg=look(1))))
        if f >= 14:
            u, v = ease(f, 14, 74), ease(f, 166, 212)
            out.append(("Ada", dict(x=-80 + 295 * u - 330 * v, y=214 + bob(2, 4 * u * (1 - u) + v), scale=1.06, tilt_deg=tilt(2), yaw_deg=look(2) + 40 * u * (1 - u) - 14 * min(1, 3 * v))))
    else:
        # The stranger walks by behind, left to right; Chloé looks away and back; Boris joins, out of focus at first.
        g = f - CUT
        u, v, away = ease(g, 4, 142), ease(g, 62, 112), ease(g, 30, 44) - ease(g, 62, 78)
        out.append(("stranger", dict(x=-50 + 880 * u, y=84 + bob(4, 1), scale=0.66, tilt_deg=tilt(4), yaw_deg=8 + look(4), tint=(0.94, 0.9, 0.95))))
        if g >= 62:
            out.append(("Boris", dict(x=835 - 240 * v, y=200 + bob(1, 4 * v * (1 - v)), scale=0.92, tilt_deg=tilt(1), yaw_deg=look(1) - 8, blur=3.2 * (1 - ease(g, 108, 126)), tint=(0.94, 0.88, 0.9))))
        out.append(("Chloé", dict(x=285 + 14 * np.sin(t * 0.6), y=214 + bob(3), scale=1.24, tilt_deg=tilt(3) - 3 * away, yaw_deg=look(3) * (1 - away) + 33 * away, tint=(0.97, 0.92, 0.92))))
    return out


def scene(f, looks, places):
    """Frame f as float RGB and its truth entry."""
    shot = int(f >= CUT)
    g = f - CUT * shot
    pan = (20 + 0.35 * g, 24) if shot == 0 else (150 - 0.3 * g, 30 + 4 * np.sin(g / 40))
    frame = cv2.warpAffine(places[shot], np.array([[1, 0, -pan[0]], [0, 1, -pan[1]]], np.float64), (W, H), flags=cv2.INTER_LINEAR)
    drawn = []
    for key, where in cast(f):
        look = looks[key]
        c = look.coefficients(f / FPS, seed=shot)
        ring, alpha = draw_person(frame, look, c, **where)
        for d in drawn:
            d["seen"] *= 1 - alpha
        mask = np.zeros((H, W), np.float32)
        cv2.fillPoly(mask, [np.round(ring * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        drawn.append(dict(key=key, ring=ring, seen=mask, area=cv2.contourArea(ring.astype(np.float32)), where=where))
    faces = []
    for d in drawn:
        visible = float(d["seen"].sum() / d["area"])
        x0, y0 = np.maximum(d["ring"].min(0), 0)
        x1, y1 = np.minimum(d["ring"].max(0), (W, H))
        if visible < 0.05 or x1 - x0 < 2:
            continue
        face = {"id": f"s{shot + 1}-{d['key'].lower()}", "name": looks[d["key"]].p.name, "box": [round(float(v), 1) for v in (x0, y0, x1, y1)]}
        notes = [n for n, is_so in (("partly hidden or out of the picture", visible < 0.85), ("out of focus", d["where"].get("blur", 0) > 1.2), ("turned", abs(d["where"]["yaw_deg"]) > 22)) if is_so]
        face["difficult"] = bool(notes)
        if visible < 0.5:
            face["partial"] = True
        if notes:
            face["note"] = ", ".join(notes)
        faces.append(face)
    grain = np.random.default_rng(f).standard_normal((H, W, 1)).astype(np.float32)
    return (frame + 1.6 * grain).clip(0, 255), {"frame": f, "shot": shot + 1, "faces": faces, "ignore": []}


def still(look, k):
    """A portrait 300 px wide and 360 high."""
    frame = gradient(*(((168, 178, 186), (120, 130, 142)), ((196, 186, 170), (150, 136, 120)), ((120, 138, 128), (84, 98, 92)))[k], 300, 360)
    tilt = (0, -5, 6)[k]
    c = look.coefficients(0, 0.55, seed=40 + k)
    draw_person(frame, look, c, 150 + (-6, 8, 0)[k], 172, (1.75, 1.6, 1.9)[k], tilt, (0, 9, -9)[k])
    return frame.clip(0, 255)


def music(seconds, rate=44100):
    """A slow chord progression with a plucked line over it; int16 stereo."""
    n = int(seconds * rate)
    t = np.arange(n) / rate
    out = np.zeros((n, 2))
    note = lambda m: 440 * 2 ** ((m - 69) / 12)
    bar = 2.0
    chords = [(57, 60, 64, 67), (53, 57, 60, 64), (48, 55, 60, 64), (55, 59, 62, 67)]
    rng = np.random.default_rng(3)
    for b in range(int(np.ceil(seconds / bar))):
        chord = chords[b % 4]
        u = t - b * bar
        env = np.clip(u / 0.5, 0, 1) * np.clip((bar + 0.5 - u) / 0.6, 0, 1)
        for i, m in enumerate(chord):
            w = np.sin(2 * np.pi * note(m) * u) + 0.25 * np.sin(4 * np.pi * note(m) * u + 0.5)
            out += (0.05 * w * env)[:, None] * [1 - 0.2 * (i % 2), 0.8 + 0.2 * (i % 2)]
        out += (0.10 * np.sin(2 * np.pi * note(chord[0] - 12) * u) * env)[:, None]
        for k in range(8):
            m, s = chord[rng.integers(4)] + 12, b * bar + k * bar / 8
            i = int(s * rate)
            v = t[: max(0, min(n - i, rate))]
            tone = sum(np.sin(2 * np.pi * h * note(m) * v) * np.exp(-v * (3.5 + 2 * h)) / h for h in (1, 2, 3, 4)) * np.clip(v / 0.004, 0, 1)
            pan = rng.uniform(0.3, 0.7)
            out[i : i + len(v)] += 0.11 * tone[:, None] * [1 - pan, pan]
    out *= np.clip(np.minimum(t / 0.3, (seconds - t) / 1.0), 0, 1)[:, None]
    return (out / np.abs(out).max() * 0.7 * 32767).astype("<i2")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--crops")
    a.add_argument("--labels")
    a.add_argument("--model", required=True)
    a.add_argument("--faces", type=int, default=5000, help="crops the model is fitted to, at most")
    a.add_argument("--out", default=HERE)
    a.add_argument("--only", default="")
    a = a.parse_args()
    cv2.setNumThreads(1)
    if not os.path.exists(a.model):
        crops = np.load(a.crops, mmap_mode="r")
        keep, person = select(crops, a.labels)
        r = np.sort(np.random.default_rng(0).permutation(len(keep))[: a.faces])
        FaceModel.fit(crops[keep[r]], person[r]).save(a.model)
    model = FaceModel.load(a.model)
    looks = {k: Look(model, p) for k, p in PEOPLE.items()}
    bgr = lambda x: np.round(x).astype(np.uint8)[..., ::-1]
    if not a.only.startswith("frames"):
        for key, look in looks.items():
            if look.p.name == "unknown":
                continue
            os.makedirs(f"{a.out}/people/{key}", exist_ok=True)
            for k in range(3):
                cv2.imencode(".jpg", bgr(still(look, k)), [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tofile(f"{a.out}/people/{key}/{k + 1}.jpg")
    if a.only == "stills":
        return
    places = (room(), evening())
    if a.only.startswith("frames:"):
        for f in map(int, a.only[7:].split(",")):
            cv2.imwrite(f"{a.out}/frame{f:03}.png", bgr(scene(f, looks, places)[0]))
        return
    sound = f"{a.out}/sound.part.wav"
    with wave.open(sound, "wb") as w:
        w.setnchannels(2), w.setsampwidth(2), w.setframerate(44100)
        w.writeframes(music(FRAMES / FPS).tobytes())
    video = subprocess.Popen(
        ["ffmpeg", "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{W}x{H}", "-r", str(FPS), "-i", "-", "-i", sound,
         "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709",
         "-c:v", "libx264", "-threads", "1", "-preset", "slow", "-crf", "19", "-pix_fmt", "yuv420p", "-g", "50",
         "-c:a", "aac", "-b:a", "112k", "-movflags", "+faststart", "-map_metadata", "-1", f"{a.out}/sample.mp4"],
        stdin=subprocess.PIPE)
    truth = []
    for f in range(FRAMES):
        img, entry = scene(f, looks, places)
        video.stdin.write(np.ascontiguousarray(bgr(img)).tobytes())
        truth.append(entry)
    video.stdin.close()
    assert video.wait() == 0, "ffmpeg failed"
    os.remove(sound)
    write_truth(f"{a.out}/sample.json", truth)


def write_truth(path, frames):
    head = {
        "description": "Ground truth for sample.mp4, made with it by generate.py: nobody in it exists. frame is the 0-based decode index. "
        "box = [x1,y1,x2,y2] px, forehead (hairline) to chin, tight; a face cut off by the frame is clipped to it. name is one of the folders of "
        "people/, or unknown. difficult=true: partly hidden, out of focus or turned: a detector is not blamed for a miss, but is credited for a hit and blamed "
        "for a wrong name. partial=true: less than half of the face to be seen; do not count as a miss or a hit. Match a detection to a truth face when IoU>=0.3 or the "
        "detection centre lies inside the truth box and the truth centre inside the detection.",
        "shots": [[0, CUT - 1], [CUT, FRAMES - 1]],
        "width": W, "height": H, "fps": FPS,
    }
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "frames": [\n')
        f.write(",\n".join("  " + json.dumps(x, ensure_ascii=False) for x in frames))
        f.write("\n ]\n}\n")


if __name__ == "__main__":
    main()
