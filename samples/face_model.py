"""A statistical model of faces, and faces of nobody drawn from it.

Fitted to five-point aligned 112x112 crops of many people. As in an active appearance model, every
crop is split into a shape (a smooth flow field that carries the mean face onto it, found by optical
flow against the model's own best reconstruction, a few rounds: Vetter, Jones & Poggio's bootstrapping) and
a texture (the crop seen in the shape of the mean face). Shape and texture are reduced by principal
components; in that space the covariance *within* people (from people with many photographs: pose,
light, expression) and *between* people (the total less the within) are told apart. An identity is a
draw from the second, its motion a walk along the leading directions of the first.
"""
import csv

import cv2
import numpy as np

SIZE = 112
# The five points of the crop (left eye, right eye, nose, left and right mouth corner), 0-based.
TEMPLATE = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)], np.float32)
GRID = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).astype(np.float32)
COARSE = 28  # shape is kept as a COARSE x COARSE flow field


def oval(cx, cy, rx, ry, soft, size=SIZE, scale=1.0):
    """1 inside the ellipse, 0 outside, a smooth edge `soft` px wide centred on it."""
    y, x = np.mgrid[:size, :size] / scale
    r = np.hypot((x - cx) / rx, (y - cy) / ry)
    t = np.clip((1 - r) * min(rx, ry) / soft + 0.5, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


REGION = oval(56, 60, 50, 62, 14)


def select(crops, labels, per_person=60):
    """Rows of clear, roughly frontal, coloured crops."""
    rows = list(csv.DictReader(open(labels, newline="")))
    person = np.array([int(r["label"]) for r in rows])
    padded = np.array([r["source_file"].startswith("pins") for r in rows])
    core = oval(56, 66, 34, 42, 4, SIZE) > 0.5
    small = cv2.resize(core.astype(np.uint8), (28, 28), interpolation=cv2.INTER_AREA) > 0
    even, sharp, colour = (np.zeros(len(rows), np.float32) for _ in range(3))
    for i in np.flatnonzero(~padded):
        g = cv2.cvtColor(crops[i], cv2.COLOR_RGB2GRAY)
        s = cv2.resize(g, (28, 28), interpolation=cv2.INTER_AREA).astype(np.float32)
        a, b = s[small] - s[small].mean(), s[:, ::-1][small] - s[:, ::-1][small].mean()
        even[i] = (a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1)
        sharp[i] = cv2.Laplacian(g, cv2.CV_32F)[core].std()
        c = crops[i][core].astype(np.float32)
        colour[i] = np.abs(c[:, 0] - c[:, 2]).mean()
    good = np.flatnonzero(~padded & (even > 0.72) & (sharp > 7) & (colour > 8))
    rng = np.random.default_rng(1)
    rng.shuffle(good)
    seen, keep = {}, []
    for i in good:
        seen[person[i]] = seen.get(person[i], 0) + 1
        if seen[person[i]] <= per_person:
            keep.append(i)
    keep = np.sort(keep)
    return keep, person[keep]


def basis(x, k, seed=0):
    """Mean, the k leading principal directions (rows) and standard deviations of the rows of x."""
    mean = x.mean(0)
    x = x - mean
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((x.shape[1], k + 20), np.float32)
    for _ in range(2):
        q = np.linalg.qr(x.T @ (x @ q))[0]
    u, s, vt = np.linalg.svd(x @ q, full_matrices=False)
    v = (vt @ q.T)[:k]
    v *= np.sign(v[np.arange(k), np.abs(v).argmax(1)])[:, None]
    return mean, np.ascontiguousarray(v, np.float32), (s[:k] / np.sqrt(len(x))).astype(np.float32)


def flatten_light(g):
    """Grey image with local mean and contrast evened out, for optical flow."""
    g = g.astype(np.float32)
    d = g - cv2.GaussianBlur(g, (0, 0), 9)
    s = np.sqrt(cv2.GaussianBlur(d * d, (0, 0), 14)) + 6
    return np.clip(128 + 45 * d / s, 0, 255).astype(np.uint8)


def coarse(flow):
    return cv2.resize(flow, (COARSE, COARSE), interpolation=cv2.INTER_AREA)


def fine(flow):
    return cv2.resize(flow, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def register(crops, rounds=3, log=print):
    """Coarse flow fields [n, COARSE, COARSE, 2]: the pixel x of the mean face is at x + flow(x) in the crop."""
    n = len(crops)
    grey = [cv2.cvtColor(c, cv2.COLOR_RGB2GRAY) for c in crops]
    even = [flatten_light(g) for g in grey]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    dis.setPatchSize(12)
    dis.setPatchStride(4)
    flows = np.zeros((n, COARSE, COARSE, 2), np.float32)
    weight = coarse(REGION)[..., None]
    for r in range(rounds):
        warped = np.stack([cv2.remap(grey[i], GRID + fine(flows[i]), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for i in range(n)])
        flat = (warped.astype(np.float32) * REGION).reshape(n, -1)
        mean, v, _ = basis(flat, 1 + 12 * r) if r else (flat.mean(0), None, None)
        for i in range(n):
            ref = mean if v is None else mean + ((flat[i] - mean) @ v.T) @ v
            ref = (ref.reshape(SIZE, SIZE) / np.maximum(REGION, 0.05)).clip(0, 255)
            f = dis.calc(flatten_light(ref), even[i], None)
            f = cv2.GaussianBlur(f * REGION[..., None], (0, 0), 2.5)
            flows[i] = coarse(f) * weight
        x = flows.reshape(n, -1)
        mean, v, _ = basis(x, 12 + 10 * r)
        x -= mean  # the mean face has the mean shape
        flows = ((x @ v.T) @ v).reshape(flows.shape)
        log(f"registration round {r + 1}: mean displacement {np.abs(flows).mean():.2f} px")
    return flows


class FaceModel:
    """Shape and texture bases; columns of `between`, `motion`, `light`: one standard deviation along each
    direction of the differences between people, of pose and expression, and of lighting."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    @staticmethod
    def fit(crops, person, shapes=40, textures=320, log=print):
        """crops: uint8 [n,112,112,3] RGB; person: [n] labels."""
        n = len(crops)
        flows = register(crops, log=log)
        inside = REGION > 0.02
        x = np.empty((n, int(inside.sum()) * 3), np.float32)
        for i in range(n):
            w = cv2.remap(crops[i], GRID + fine(flows[i]), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            x[i] = w[inside].reshape(-1)
        tm, tv, ts = basis(x, textures)
        sm, sv, ss = basis(flows.reshape(n, -1), shapes)
        log("bases done")
        c = np.hstack([(flows.reshape(n, -1) - sm) @ sv.T / ss[0], (x - tm) @ tv.T / ts[0]]).astype(np.float64)
        ids, inv, count = np.unique(person, return_inverse=True, return_counts=True)
        means = np.stack([np.bincount(inv, c[:, j]) for j in range(c.shape[1])], 1) / count[:, None]
        many = count[inv] >= 12
        resid = (c - means[inv])[many]
        within = resid.T @ resid / (many.sum() - (count >= 12).sum())
        w = 1 / np.sqrt(count[inv])  # a person with many photographs must not dominate
        centre = (c * w[:, None]).sum(0) / w.sum()
        total = ((c - centre) * w[:, None]).T @ (c - centre) / w.sum()
        e, u = np.linalg.eigh(total - within)
        e = e.clip(0)
        between = (u * np.sqrt(e))[:, ::-1]
        # Pose and expression move the shape: the leading shape directions, each with its change of texture
        # (by regression). The largest remaining change, independent of the shape, is the light.
        def leading(cov):
            e, u = np.linalg.eigh(cov)
            e, u = e[::-1].clip(1e-9), u[:, ::-1]
            return e, u * np.sign(u[np.abs(u).argmax(0), np.arange(len(e))])
        e, u = leading(within[:shapes, :shapes])
        motion = within[:, :shapes] @ u / np.sqrt(e)
        e, u = leading(within)
        light = u * np.sqrt(e)
        return FaceModel(tm=tm, tv=tv, ts=ts, sm=sm, sv=sv, ss=ss, centre=centre, between=between, motion=motion[:, :12], light=light[:, :12], inside=inside)

    def save(self, path):
        np.savez(path, **self.__dict__)

    @staticmethod
    def load(path):
        return FaceModel(**np.load(path))

    def identity(self, seed, strength=1.0):
        """The neutral look of one invented person: a draw from the between-person distribution, and most of its
        asymmetry, which is pose and light rather than identity, taken out."""
        z = np.random.default_rng(seed).standard_normal(self.between.shape[1])
        c = self.centre + strength * (self.between @ z)
        return 0.6 * c + 0.4 * self.mirrored(c)

    def texture(self, c):
        """[112, 112, 3] of coefficients c in the mean face's shape, the surroundings filled in."""
        tex = np.zeros((SIZE, SIZE, 3), np.float32)
        tex[self.inside] = (self.tm + (c[len(self.ss) :] * self.ts[0]).astype(np.float32) @ self.tv).reshape(-1, 3)
        w = cv2.GaussianBlur(self.inside.astype(np.float32), (0, 0), 5)[..., None]
        spread = cv2.GaussianBlur(tex, (0, 0), 5) / np.maximum(w, 1e-3)
        tex[~self.inside] = spread[~self.inside]
        return tex

    def shape(self, c):
        """Coarse flow [COARSE, COARSE, 2] of coefficients c."""
        return (self.sm + (c[: len(self.ss)] * self.ss[0]).astype(np.float32) @ self.sv).reshape(COARSE, COARSE, 2).astype(np.float32)

    def mirrored(self, c):
        """Coefficients of the mirror image."""
        axis = 2 * TEMPLATE[:2, 0].mean()
        m = np.array([[-1, 0, axis], [0, 1, 0]], np.float32)
        tex = cv2.warpAffine(self.texture(c), m, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        k = SIZE / COARSE
        m[0, 2] = (axis + 1) / k - 1  # pixel centres of the coarse grid
        flow = cv2.warpAffine(self.shape(c), m, (COARSE, COARSE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) * np.float32([-1, 1])
        return np.hstack([(flow.reshape(-1) - self.sm) @ self.sv.T / self.ss[0], (tex[self.inside].reshape(-1) - self.tm) @ self.tv.T / self.ts[0]])

    def render(self, c, scale=2):
        """Of coefficients c: RGB float [112*scale, 112*scale, 3] in 0..255; where each of its pixels lies on the mean
        face (px of the result), with which any mask drawn over the mean face can be brought to this face's
        shape; and the flow [112, 112, 2] that goes the other way, in px of the crop."""
        tex = self.texture(c)
        flow = fine(self.shape(c))
        back = -flow
        for _ in range(6):
            back = -cv2.remap(flow, GRID + back, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        n = SIZE * scale
        # centre-aligned enlargement of both
        m = np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2]], np.float32)
        big = cv2.warpAffine(tex, m, (n, n), flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
        bf = cv2.warpAffine(back, m, (n, n), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) * scale
        y, x = np.mgrid[:n, :n].astype(np.float32)
        at = np.stack([x, y], -1) + bf
        return cv2.remap(big, at, None, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE).clip(0, 255), at, flow
