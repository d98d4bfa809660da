// Kernels that candle does not have, or whose kernel there takes many times as long. `Arguments` is that of
// operations.rs. Maps are stored position by position, each with its channels.

struct Run {
    unsigned first_in, first_out, rows_in, columns_in, rows_out, columns_out;
};

struct Arguments {
    // Channels of the maps; in gather() the number of quads of channels if `quads` is set.
    unsigned channels;
    // Number of threads with work.
    unsigned total;
    unsigned quads, with_other;
    unsigned side, stride, padding, spread;
    unsigned runs;
    Run run[32];  // RUNS in operations.rs.
};

// The map of an output position, and the row and column there.
struct Spot {
    Run run;
    unsigned map, row, column;
};

static __device__ Spot spot_of(const Arguments& p, unsigned place) {
    unsigned r = 0;
    while (r + 1 < p.runs && place >= p.run[r + 1].first_out) r++;
    Spot spot;
    spot.run = p.run[r];
    unsigned in_run = place - spot.run.first_out, places = spot.run.rows_out * spot.run.columns_out;
    unsigned in_map = in_run % places;
    spot.map = in_run / places;
    spot.row = in_map / spot.run.columns_out;
    spot.column = in_map % spot.run.columns_out;
    return spot;
}

template <typename V>
static __device__ void gather_as(const V* from, V* to, const Arguments& p, V nothing) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.total; i += gridDim.x * blockDim.x) {
        unsigned channel = i % p.channels, place = i / p.channels;
        Spot spot = spot_of(p, place);
        V* out = to + (size_t)place * p.side * p.side * p.channels + channel;
        size_t map = spot.run.first_in + (size_t)spot.map * spot.run.rows_in * spot.run.columns_in;
        for (unsigned y = 0; y < p.side; y++) {
            // Above the map this is a very large number, and so beyond it as well.
            unsigned row = spot.row * p.stride + y - p.padding;
            bool is_row = row < spot.run.rows_in * p.spread && row % p.spread == 0;
            for (unsigned x = 0; x < p.side; x++, out += p.channels) {
                unsigned column = spot.column * p.stride + x - p.padding;
                bool is_there = is_row && column < spot.run.columns_in * p.spread && column % p.spread == 0;
                size_t at = map + (size_t)(row / p.spread) * spot.run.columns_in + column / p.spread;
                *out = is_there ? from[at * p.channels + channel] : nothing;
            }
        }
    }
}

extern "C" __global__ void gather(const float* a, const float*, const float*, float* out, Arguments p) {
    if (p.quads) {
        gather_as((const float4*)a, (float4*)out, p, make_float4(0, 0, 0, 0));
    } else {
        gather_as(a, out, p, 0.0f);
    }
}

extern "C" __global__ void pool(const float* a, const float*, const float*, float* out, Arguments p) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.total; i += gridDim.x * blockDim.x) {
        unsigned channel = i % p.channels;
        Spot spot = spot_of(p, i / p.channels);
        size_t map = spot.run.first_in + (size_t)spot.map * spot.run.rows_in * spot.run.columns_in;
        unsigned top = spot.row * p.stride, left = spot.column * p.stride;
        float most = -__int_as_float(0x7f800000);
        for (unsigned row = top; row < top + p.side && row < spot.run.rows_in; row++) {
            for (unsigned column = left; column < left + p.side && column < spot.run.columns_in; column++) {
                size_t at = map + (size_t)row * spot.run.columns_in + column;
                most = fmaxf(most, a[at * p.channels + channel]);
            }
        }
        out[i] = most;
    }
}

extern "C" __global__ void finish(const float* sums, const float* layer, const float* other, float* out,
                                  Arguments p) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.total; i += gridDim.x * blockDim.x) {
        unsigned channel = i % p.channels;
        float sum = sums[i] + layer[channel];
        float value = sum > 0 ? sum : layer[p.channels + channel] * sum;
        out[i] = p.with_other ? value + other[i] : value;
    }
}

extern "C" __global__ void finish_back(const float* sums, const float* layer, const float* by_output, float* out,
                                       Arguments p) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.total; i += gridDim.x * blockDim.x) {
        unsigned channel = i % p.channels;
        float sum = sums[i] + layer[channel], gradient = by_output[i];
        out[i] = sum > 0 ? gradient : layer[p.channels + channel] * gradient;
        out[(size_t)p.total + i] = sum > 0 ? 0.0f : sum * gradient;
    }
}
