/* The element-wise chains of pol/portable, with the sums between them: the same operations in the same order.
 *
 * Every operation is one of IEEE 754 (or on bits), rounded once; so this file is compiled without contraction and
 * without any other licence to change results. Only sums on a grid may be taken in any order: they are exact. The
 * polynomials' coefficients and the other constants come from pol/portable/elementary.py and functions.py.
 *
 * Rows lie together in memory. A group that is summed has at most BLOCK elements; `factor` is 1.5 * 2^(53 - beta).
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define MANY 16384 /* elements at a time */
#define PARTS 32
#define IN_PARALLEL _Pragma("omp parallel for num_threads(threads) if (threads > 1)")

static inline double as_double(int64_t bits)
{
    double x;
    memcpy(&x, &bits, 8);
    return x;
}

static inline int64_t as_bits(double x)
{
    int64_t bits;
    memcpy(&bits, &x, 8);
    return bits;
}

#define HORNER(x, c) horner(x, c, sizeof(c) / sizeof(*c))
static inline __attribute__((always_inline)) double horner(double x, const double *c, int count)
{
    double value = x * c[count - 1];
#pragma GCC unroll 16
    for (int i = count - 2; i > 0; i--) value = (value + c[i]) * x;
    return value + c[0];
}

/* 2^f - 1 for y = k + f, and 2^k */
static inline double power_of_two(double y, double *scale)
{
    y = y < -1023.0 ? -1023.0 : y;
    y = y > 1024.0 ? 1024.0 : y;
    double shifted = y + (ROUNDER + 1023.0);
    double f = y - (shifted - (ROUNDER + 1023.0));
    *scale = as_double((int64_t)((uint64_t)as_bits(shifted) << 52));
    return HORNER(f, EXP2) * f;
}

static inline double exp64(double x)
{
    double scale, tail = power_of_two(x * LOG2_E, &scale);
    return (tail + 1.0) * scale;
}

static inline double expm1_64(double x)
{
    double scale, tail = power_of_two(x * LOG2_E, &scale);
    return tail * scale + (scale - 1.0);
}

static inline double log64(double x)
{
    int64_t bits = as_bits(x), k = (bits - 0x3FE6A09E667F3BCD) >> 52;
    double m = as_double(bits - (int64_t)((uint64_t)k << 52)), s = (m - 1.0) / (m + 1.0);
    double found = HORNER(s * s, ARTANH) * s * 2.0 + (double)k * LN_2;
    double outside = x == 0 ? -INFINITY : x < 0 ? NAN : x;
    return x > 0 && x < INFINITY ? found : outside;
}

static inline double normal_tail(double a, double *bell)
{
    double u = 1.0 / ((a > 15.0 ? 15.0 : a) + 4.0) * 4.0;
    *bell = exp64(a * a * -0.5);
    return HORNER(u, TAIL) * u * *bell;
}

static inline double normal(double x, double *bell)
{
    double tail = normal_tail(fabs(x), bell);
    return x < 0 ? tail : 1.0 - tail;
}

static inline double erf64(double x)
{
    double bell, tail = normal_tail(fabs(x) * ROOT_2, &bell);
    return fabs(x) < 0.6875 ? HORNER(x * x, ERF) * x : copysign(tail * -2.0 + 1.0, x);
}

static inline double tanh64(double x)
{
    x = x < -22.0 ? -22.0 : x;
    double e = expm1_64((x > 22.0 ? 22.0 : x) * 2.0);
    return e / (e + 2.0);
}

static inline double sigmoid64(double x) { return 1.0 / (exp64(-x) + 1.0); }

static inline double silu64(double x) { return sigmoid64(x) * x; }

static inline double gelu64(double x)
{
    double bell;
    return normal(x, &bell) * x;
}

static inline double gelu_tanh64(double x) { return sigmoid64((x * x * CUBE + 1.0) * x * SLOPE) * x; }

static inline double tanh_backward64(double g, double y) { return (-(y * y) + 1.0) * g; }

static inline double sigmoid_backward64(double g, double y) { return (1.0 - y) * y * g; }

static inline double silu_backward64(double g, double x)
{
    double s = sigmoid64(x);
    return ((1.0 - s) * x + 1.0) * s * g;
}

static inline double gelu_backward64(double g, double x)
{
    double bell, below = normal(x, &bell);
    return (bell * BELL * x + below) * g;
}

static inline double gelu_tanh_backward64(double g, double x)
{
    double square = x * x, s = sigmoid64((square * CUBE + 1.0) * x * SLOPE);
    double slope = (square * CUBE_3 + 1.0) * SLOPE;
    return (slope * x * (1.0 - s) + 1.0) * s * g;
}

/* Each function for float32, worked out in float64 and rounded once, and for float64. */

#define ONE(name, number) \
static void piece_##name##_##number(long count, const number *restrict x, number *restrict out) \
{ \
    for (long i = 0; i < count; i++) out[i] = (number)name##64((double)x[i]); \
} \
void name##_##number(long count, const number *x, number *out, long threads) \
{ \
    IN_PARALLEL \
    for (long i = 0; i < count; i += MANY) \
        piece_##name##_##number(count - i < MANY ? count - i : MANY, x + i, out + i); \
}

#define TWO(name, number) \
static void piece_##name##_##number( \
    long count, const number *restrict x, const number *restrict y, number *restrict out) \
{ \
    for (long i = 0; i < count; i++) out[i] = (number)name##64((double)x[i], (double)y[i]); \
} \
void name##_##number(long count, const number *x, const number *y, number *out, long threads) \
{ \
    IN_PARALLEL \
    for (long i = 0; i < count; i += MANY) \
        piece_##name##_##number(count - i < MANY ? count - i : MANY, x + i, y + i, out + i); \
}

#define OF_ONE(name) ONE(name, float) ONE(name, double)
#define OF_TWO(name) TWO(name, float) TWO(name, double)

OF_ONE(exp)
OF_ONE(log)
OF_ONE(tanh)
OF_ONE(erf)
OF_ONE(sigmoid)
OF_ONE(silu)
OF_ONE(gelu)
OF_ONE(gelu_tanh)
OF_TWO(tanh_backward)
OF_TWO(sigmoid_backward)
OF_TWO(silu_backward)
OF_TWO(gelu_backward)
OF_TWO(gelu_tanh_backward)

/* Sums of one group, in float64. */

static double shift_of(uint32_t bits, double factor)
{
    float top;
    memcpy(&top, &bits, 4);
    return as_double(as_bits((double)top) & 0x7FF0000000000000) * factor;
}

static inline uint32_t magnitude_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits & 0x7FFFFFFF;
}

static uint32_t largest(long count, const float *x)
{
    uint32_t top = 0;
    for (long i = 0; i < count; i++) {
        uint32_t bits = magnitude_bits(x[i]);
        top = bits > top ? bits : top;
    }
    return top;
}

static double total(long count, const float *x, double factor)
{
    double shift = shift_of(largest(count, x), factor), parts[PARTS] = {0}, sum = 0;
    long i = 0;
    for (; i + PARTS <= count; i += PARTS)
        for (int j = 0; j < PARTS; j++) parts[j] += ((double)x[i + j] + shift) - shift;
    for (; i < count; i++) sum += ((double)x[i] + shift) - shift;
    for (int j = 0; j < PARTS; j++) sum += parts[j];
    return sum;
}

void row_totals(long rows, long size, const float *x, double factor, double *out, long threads)
{
    IN_PARALLEL
    for (long r = 0; r < rows; r++) out[r] = total(size, x + r * size, factor);
}

/* Sums over rows, for each column, of x; or, with `scale`, of x times (other - mean) * scale of its row. */
void column_totals(
    long rows, long columns, const float *x, const float *other, const float *mean, const float *scale, double factor,
    double *out, long threads)
{
    IN_PARALLEL
    for (long first = 0; first < columns; first += PARTS) {
        long count = columns - first < PARTS ? columns - first : PARTS;
        uint32_t top[PARTS] = {0};
        double shift[PARTS] = {0}, sum[PARTS] = {0};
        for (int turn = 0; turn < 2; turn++) {
            for (long r = 0; r < rows; r++) {
                const float *from = x + r * columns + first;
                float value[PARTS] = {0};
                if (!scale) memcpy(value, from, sizeof(float) * count);
                else
                    for (long c = 0; c < count; c++)
                        value[c] = from[c] * ((other[r * columns + first + c] - mean[r]) * scale[r]);
                if (turn)
                    for (int c = 0; c < PARTS; c++) sum[c] += ((double)value[c] + shift[c]) - shift[c];
                else
                    for (int c = 0; c < PARTS; c++)
                        top[c] = magnitude_bits(value[c]) > top[c] ? magnitude_bits(value[c]) : top[c];
            }
            for (int c = 0; !turn && c < PARTS; c++) shift[c] = shift_of(top[c], factor);
        }
        for (long c = 0; c < count; c++) out[first + c] = sum[c];
    }
}

/* Rows: softmax, layer norm, and their gradients; `held` has room for BLOCK floats. */

static float highest(long count, const float *x)
{
    float parts[PARTS];
    for (int j = 0; j < PARTS; j++) parts[j] = x[0];
    long i = 0;
    for (; i + PARTS <= count; i += PARTS)
        for (int j = 0; j < PARTS; j++) parts[j] = x[i + j] > parts[j] ? x[i + j] : parts[j];
    for (; i < count; i++) parts[0] = x[i] > parts[0] ? x[i] : parts[0];
    for (int j = 1; j < PARTS; j++) parts[0] = parts[j] > parts[0] ? parts[j] : parts[0];
    return parts[0];
}

/* exp(x - top) into `out`, and their sum */
static float exponentials(long size, const float *x, float top, double factor, float *out)
{
    for (long i = 0; i < size; i++) out[i] = (float)exp64((double)(x[i] - top));
    return (float)total(size, out, factor);
}

void softmax(long rows, long size, const float *x, double factor, float *out, long threads)
{
    IN_PARALLEL
    for (long r = 0; r < rows; r++) {
        const float *from = x + r * size;
        float *to = out + r * size, sum = exponentials(size, from, highest(size, from), factor, to);
        for (long i = 0; i < size; i++) to[i] = to[i] / sum;
    }
}

void softmax_backward(long rows, long size, const float *g, const float *y, double factor, float *out, long threads)
{
    IN_PARALLEL
    for (long r = 0; r < rows; r++) {
        const float *grad = g + r * size, *from = y + r * size;
        float *to = out + r * size;
        for (long i = 0; i < size; i++) to[i] = grad[i] * from[i];
        float along = (float)total(size, to, factor);
        for (long i = 0; i < size; i++) to[i] = (grad[i] - along) * from[i];
    }
}

void log_softmax(long rows, long size, const float *x, double factor, float *out, long threads)
{
    IN_PARALLEL
    for (long r = 0; r < rows; r++) {
        const float *from = x + r * size;
        float *to = out + r * size, top = highest(size, from);
        float sum = (float)log64((double)exponentials(size, from, top, factor, to));
        for (long i = 0; i < size; i++) to[i] = (from[i] - top) - sum;
    }
}

void log_softmax_backward(long rows, long size, const float *g, const float *y, double factor, float *out, long threads)
{
    IN_PARALLEL
    for (long r = 0; r < rows; r++) {
        const float *grad = g + r * size, *from = y + r * size;
        float *to = out + r * size, along = (float)total(size, grad, factor);
        for (long i = 0; i < size; i++) to[i] = grad[i] - (float)exp64((double)from[i]) * along;
    }
}

static void affine(long size, const float *weight, const float *bias, float *to)
{
    if (weight)
        for (long i = 0; i < size; i++) to[i] = to[i] * weight[i];
    if (bias)
        for (long i = 0; i < size; i++) to[i] = to[i] + bias[i];
}

/* The square root's inverse of a sum of squared differences over their count, less the square of what was missed. */
static float inverse_root(double sum, long count, double missed, double eps)
{
    double spread = sum / (double)count - missed * missed;
    return (float)(1.0 / sqrt((spread < 0 ? 0 : spread) + eps));
}

void layer_norm(
    long rows, long size, const float *x, const float *weight, const float *bias, double eps, double factor,
    float *out, float *mean, float *scale, long threads)
{
    IN_PARALLEL
    for (long r = 0; r < rows; r++) {
        const float *from = x + r * size;
        float *to = out + r * size, held[BLOCK];
        double exact = total(size, from, factor) / (double)size;
        float centre = (float)exact;
        for (long i = 0; i < size; i++) held[i] = (from[i] - centre) * (from[i] - centre);
        float root = inverse_root(total(size, held, factor), size, exact - (double)centre, eps);
        for (long i = 0; i < size; i++) to[i] = (from[i] - centre) * root;
        affine(size, weight, bias, to);
        mean[r] = centre, scale[r] = root;
    }
}

void layer_norm_backward(
    long rows, long size, const float *g, const float *x, const float *mean, const float *scale, const float *weight,
    double factor, float *out, long threads)
{
    IN_PARALLEL
    for (long r = 0; r < rows; r++) {
        const float *grad = g + r * size, *from = x + r * size;
        float *to = out + r * size, held[BLOCK];
        for (long i = 0; i < size; i++) to[i] = weight ? grad[i] * weight[i] : grad[i];
        for (long i = 0; i < size; i++) held[i] = to[i] * ((from[i] - mean[r]) * scale[r]);
        float level = (float)(total(size, to, factor) / (double)size);
        float slope = (float)(total(size, held, factor) / (double)size);
        for (long i = 0; i < size; i++)
            to[i] = ((to[i] - level) - ((from[i] - mean[r]) * scale[r]) * slope) * scale[r];
    }
}

/* Channels of x (samples, channels, size). A group is a sample's channel, or that of all samples together, `joined`:
 * then at most BLOCK elements. Sums are (samples or 1, channels). */

void channel_totals(
    long samples, long channels, long size, long joined, const float *x, double factor, double *out, long threads)
{
    IN_PARALLEL
    for (long group = 0; group < (joined ? channels : samples * channels); group++) {
        float held[BLOCK], *to = held;
        for (long n = 0; n < (joined ? samples : 1); n++, to += size)
            memcpy(to, x + (n * channels + group) * size, sizeof(float) * size);
        out[group] = total(to - held, held, factor);
    }
}

/* of squared differences from the channel's centre */
void channel_spreads(
    long samples, long channels, long size, long joined, const float *x, const float *centre, double factor,
    double *out, long threads)
{
    IN_PARALLEL
    for (long group = 0; group < (joined ? channels : samples * channels); group++) {
        float held[BLOCK], *to = held, c = centre[group % channels];
        for (long n = 0; n < (joined ? samples : 1); n++, to += size) {
            const float *from = x + (n * channels + group) * size;
            for (long i = 0; i < size; i++) to[i] = (from[i] - c) * (from[i] - c);
        }
        out[group] = total(to - held, held, factor);
    }
}

void channel_norm(
    long samples, long channels, long size, const float *x, const float *centre, const float *root,
    const float *weight, const float *bias, float *out, long threads)
{
    IN_PARALLEL
    for (long row = 0; row < samples * channels; row++) {
        const float *from = x + row * size;
        float *to = out + row * size, c = centre[row % channels], s = root[row % channels];
        for (long i = 0; i < size; i++) to[i] = (from[i] - c) * s;
        if (weight)
            for (long i = 0; i < size; i++) to[i] = to[i] * weight[row % channels];
        if (bias)
            for (long i = 0; i < size; i++) to[i] = to[i] + bias[row % channels];
    }
}

/* of g, g * normal, and of these two with g * weight for g: four times (samples or 1, channels) */
void channel_gradient_totals(
    long samples, long channels, long size, long joined, const float *g, const float *x, const float *centre,
    const float *root, const float *weight, double factor, double *out, long threads)
{
    long groups = joined ? channels : samples * channels;
    IN_PARALLEL
    for (long group = 0; group < groups; group++) {
        float held[4][BLOCK], c = centre[group % channels], s = root[group % channels];
        float w = weight ? weight[group % channels] : 1.0f;
        long count = 0;
        for (long n = 0; n < (joined ? samples : 1); n++, count += size) {
            const float *grad = g + (n * channels + group) * size, *from = x + (n * channels + group) * size;
            for (long i = 0; i < size; i++) {
                float normal = (from[i] - c) * s, scaled = grad[i] * w;
                held[0][count + i] = grad[i], held[1][count + i] = grad[i] * normal;
                held[2][count + i] = scaled, held[3][count + i] = scaled * normal;
            }
        }
        for (int kind = 0; kind < 4; kind++)
            out[kind * groups + group] = total(count, held[kind], factor);
    }
}

/* (g * weight - level - normal * slope) * root */
void channel_norm_backward(
    long samples, long channels, long size, const float *g, const float *x, const float *centre, const float *root,
    const float *weight, const float *level, const float *slope, float *out, long threads)
{
    IN_PARALLEL
    for (long row = 0; row < samples * channels; row++) {
        const float *grad = g + row * size, *from = x + row * size;
        long channel = row % channels;
        float *to = out + row * size, c = centre[channel], s = root[channel], w = weight ? weight[channel] : 1.0f;
        for (long i = 0; i < size; i++)
            to[i] = ((grad[i] * w - level[channel]) - ((from[i] - c) * s) * slope[channel]) * s;
    }
}

/* The shifts of groups: factor times the power of two of their largest magnitude. */
void channel_shifts(
    long samples, long channels, long size, long joined, const float *x, double factor, double *out, long threads)
{
    IN_PARALLEL
    for (long group = 0; group < (joined ? channels : samples * channels); group++) {
        uint32_t top = 0;
        for (long n = 0; n < (joined ? samples : 1); n++) {
            uint32_t bits = largest(size, x + (n * channels + group) * size);
            top = bits > top ? bits : top;
        }
        out[group] = shift_of(top, factor);
    }
}

/* (x + shift) - shift in float64: `lines` of `size` elements for each sample and channel, at line_from[i] in x, and at
 * line_to[i] with `step` between them in out. Strides of shift are 0 or 1 here: a shift a sample, or a channel. */
void onto_grid(
    long samples, long channels, long lines, long size, const float *x, long from_sample, long from_channel,
    const long *line_from, double *out, long to_sample, long to_channel, const long *line_to, long step,
    const double *shift, long shift_sample, long shift_channel, long threads)
{
    IN_PARALLEL
    for (long n = 0; n < samples; n++)
        for (long c = 0; c < channels; c++) {
            double by = shift[n * shift_sample + c * shift_channel];
            for (long l = 0; l < lines; l++) {
                const float *line = x + n * from_sample + c * from_channel + line_from[l];
                double *place = out + n * to_sample + c * to_channel + line_to[l];
                for (long k = 0; k < size; k++) place[k * step] = ((double)line[k] + by) - by;
            }
        }
}
