/* Sums and products on the grids of pol/portable/grid.py: exact, whatever the order, with fused multiply-adds or not.
 *
 * The only roundings here are the ones onto a grid, (x + shift) - shift, and the last one of a result. Every product is
 * exact, or rounded to float32 before it is used; so this file is compiled with contraction, elements.c without.
 *
 * A matrix product is cut into tiles of HEIGHT rows and BREADTH vectors of columns, which the registers hold. Operands
 * are rounded to their grid while they are copied into panels of that height or width.
 */
#include <omp.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 8
#define HEIGHT 8
#elif defined(__AVX__)
#define LANES 4
#define HEIGHT 4
#else
#define LANES 2
#define HEIGHT 4
#endif
#define BREADTH 3
#define WIDTH (BREADTH * LANES)
#define CHUNK 512 /* of the contraction, by DOWN rows, stays in a core's cache; ACROSS columns of sums as well */
#define DOWN 128
#define ACROSS (WIDTH * 32)
#define ROWS 4    /* of a tile of dot products, by COLUMNS */
#define COLUMNS 6

typedef double vector __attribute__((vector_size(LANES * 8), aligned(8), may_alias));

const long tile_height = HEIGHT, tile_width = WIDTH, lanes = LANES, block_size = DOWN * ACROSS;

static long least(long a, long b) { return a < b ? a : b; }

static long up(long number, long multiple) { return (number + multiple - 1) / multiple * multiple; }

static uint32_t magnitude_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits & 0x7FFFFFFF;
}

/* factor * 2^floor(log2 of the float with these bits); 0 for 0, infinity for infinity and NaN */
static double shift_of(uint32_t bits, double factor)
{
    float top;
    memcpy(&top, &bits, 4);
    double wide = top;
    uint64_t power;
    memcpy(&power, &wide, 8);
    power &= 0x7FF0000000000000;
    memcpy(&wide, &power, 8);
    return wide * factor;
}

static uint32_t largest(const float *x, long length, long along)
{
    uint32_t top = 0;
    if (along == 1)
        for (long k = 0; k < length; k++) top = magnitude_bits(x[k]) > top ? magnitude_bits(x[k]) : top;
    else
        for (long k = 0; k < length; k++) {
            uint32_t bits = magnitude_bits(x[k * along]);
            top = bits > top ? bits : top;
        }
    return top;
}

/* The shifts of `rows` <= WIDTH rows of x: row i begins at x + i * step, and its elements are `along` apart. */
static void shifts_of(long rows, long length, const float *x, long step, long along, double factor, double *shift)
{
    uint32_t top[WIDTH] = {0};
    if (step == 1 && along != 1)
        for (long k = 0; k < length; k++)
            for (long i = 0; i < rows; i++) {
                uint32_t bits = magnitude_bits(x[k * along + i]);
                top[i] = bits > top[i] ? bits : top[i];
            }
    else
        for (long i = 0; i < rows; i++) top[i] = largest(x + i * step, length, along);
    for (long i = 0; i < rows; i++) shift[i] = shift_of(top[i], factor);
}

/* Row by row onto its grid, and into panels of `size` rows, element k of row i at k * size + i; filled up by zeros. */
static inline __attribute__((always_inline)) void pack(
    long size, long rows, long length, const float *x, long step, long along, double factor, double *out, long threads)
{
#pragma omp parallel for num_threads(threads) if (threads > 1 && rows > size)
    for (long first = 0; first < rows; first += size) {
        double shift[WIDTH] = {0}, *panel = out + first * length;
        const float *from = x + first * step;
        long here = least(size, rows - first);
        shifts_of(here, length, from, step, along, factor, shift);
        if (step == 1 && here == size)
            for (long k = 0; k < length; k++)
                for (long i = 0; i < size; i++)
                    panel[k * size + i] = ((double)from[k * along + i] + shift[i]) - shift[i];
        else
            for (long k = 0; k < length; k++)
                for (long i = 0; i < size; i++)
                    panel[k * size + i] = i < here ? ((double)from[i * step + k * along] + shift[i]) - shift[i] : 0.0;
    }
}

void pack_high(
    long rows, long length, const float *x, long step, long along, double factor, double *out, long threads)
{
    pack(HEIGHT, rows, length, x, step, along, factor, out, threads);
}

/* sums[HEIGHT][stride] += a panel of HEIGHT rows times WIDTH columns; row k of these is at b + k * step or b + at[k] */
static inline __attribute__((always_inline)) void tile(
    long length, const double *a, const double *b, long step, const long *at, double *sums, long stride)
{
    vector sum[HEIGHT][BREADTH];
#pragma GCC unroll 8
    for (int i = 0; i < HEIGHT; i++)
#pragma GCC unroll 3
        for (int j = 0; j < BREADTH; j++) sum[i][j] = (vector){0};
    for (long k = 0; k < length; k++, a += HEIGHT) {
        const double *row = at ? b + at[k] : b + k * step;
        vector right[BREADTH];
#pragma GCC unroll 3
        for (int j = 0; j < BREADTH; j++) right[j] = *(const vector *)(row + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < HEIGHT; i++)
#pragma GCC unroll 3
            for (int j = 0; j < BREADTH; j++) sum[i][j] += a[i] * right[j];
    }
#pragma GCC unroll 8
    for (int i = 0; i < HEIGHT; i++)
#pragma GCC unroll 3
        for (int j = 0; j < BREADTH; j++) *(vector *)(sums + i * stride + j * LANES) += sum[i][j];
}

/* At most DOWN rows and ACROSS columns of a product of packed operands, into tiles of sums. */
static void block(long rows, long columns, long length, const double *a, const double *b, double *sums)
{
    for (long j = 0; j < columns; j += WIDTH)
        memset(sums + j * DOWN, 0, sizeof(double) * WIDTH * up(rows, HEIGHT));
    for (long start = 0; start < length; start += CHUNK)
        for (long j = 0; j < columns; j += WIDTH)
            for (long i = 0; i < rows; i += HEIGHT)
                tile(least(CHUNK, length - start), a + i * length + start * HEIGHT, b + j * length + start * WIDTH,
                     WIDTH, 0, sums + j * DOWN + i * WIDTH, WIDTH);
}

/* One block of a batch of matrix products. a: its address, then strides of batch, row and contraction; b: of batch,
 * column and contraction. Work: DOWN * ACROSS for each thread; then packed a and packed b, for each thread of a batch.
 * Exactly one of `single` and `whole` (batch, rows, columns) is given. A sum that begins with +0 is never -0. */
void multiply(
    long batch, long rows, long columns, long length, const float *a, long a_batch, long a_row, long a_along,
    const float *b, long b_batch, long b_column, long b_along, double factor, double *work, float *single,
    double *whole, long threads)
{
    long high = up(rows, HEIGHT), wide = up(columns, WIDTH), inner = batch > 1 ? 1 : threads; /* one level of threads */
#pragma omp parallel for num_threads(threads) if (threads > 1 && batch > 1)
    for (long n = 0; n < batch; n++) {
        long thread = omp_get_thread_num();
        double *left = work + threads * DOWN * ACROSS + thread * (high + wide) * length, *right = left + high * length;
        pack(HEIGHT, rows, length, a + n * a_batch, a_row, a_along, factor, left, inner);
        pack(WIDTH, columns, length, b + n * b_batch, b_column, b_along, factor, right, inner);
#pragma omp parallel for collapse(2) num_threads(inner) if (inner > 1 && rows * columns > DOWN * WIDTH)
        for (long i = 0; i < rows; i += DOWN)
            for (long j = 0; j < columns; j += ACROSS) {
                double *sums = work + (thread + omp_get_thread_num()) * DOWN * ACROSS; /* one of the numbers is 0 */
                long down = least(DOWN, rows - i), across = least(ACROSS, columns - j);
                block(down, across, length, left + i * length, right + j * length, sums);
                for (long r = 0; r < down; r++) {
                    long place = (n * rows + i + r) * columns + j;
                    for (long first = 0; first < across; first += WIDTH) {
                        const double *from = sums + first * DOWN + r * WIDTH;
                        for (long c = first; c < least(first + WIDTH, across); c++, from++)
                            if (single) single[place + c] = (float)*from;
                            else whole[place + c] = *from;
                    }
                }
            }
    }
}

/* Convolutions of stride 1. A sample of `images` is flat, as padded; element p of a window's row k is at at[k] + p for
 * the place p of its output, and `lines` say where the outputs lie: each is `size` places from line[i] on. Places
 * between lines are worked out and dropped. Panels: the weights of each group, packed. Work: HEIGHT rows of places for
 * each thread. */
void correlate(
    long samples, long groups, long rows, long length, const double *panels, const double *images, long sample_size,
    long group_size, const long *at, long places, long lines, const long *line, long size, double *work, float *out,
    long threads)
{
    long wide = up(places, WIDTH), high = up(rows, HEIGHT);
#pragma omp parallel for num_threads(threads) if (threads > 1 && samples > 1)
    for (long n = 0; n < samples; n++) {
        double *sums = work + omp_get_thread_num() * HEIGHT * wide;
        for (long g = 0; g < groups; g++)
            for (long i = 0; i < rows; i += HEIGHT) {
                const double *panel = panels + (g * high + i) * length;
                const double *image = images + n * sample_size + g * group_size;
                memset(sums, 0, sizeof(double) * HEIGHT * wide);
                for (long p = 0; p < places; p += WIDTH) tile(length, panel, image + p, 0, at, sums + p, wide);
                float *to = out + (n * groups * rows + g * rows + i) * lines * size;
                for (long r = 0; r < least(HEIGHT, rows - i); r++)
                    for (long l = 0; l < lines; l++, to += size)
                        for (long c = 0; c < size; c++) to[c] = (float)sums[r * wide + line[l] + c];
            }
    }
}

/* The weight's gradient of such a convolution, of a block of samples: dot products of `heights` (samples, groups *
 * rows, places, a multiple of LANES, zeros between the lines) with the windows' rows at at[k], summed into `sums`
 * (groups, rows, windows). Indices beyond the last row or window are worked out for the last one, and dropped. */
void dot_products(
    long samples, long groups, long rows, long windows, const double *heights, long places, const double *images,
    long sample_size, long group_size, const long *at, double *sums, long threads)
{
    long down = (rows + ROWS - 1) / ROWS, across = (windows + COLUMNS - 1) / COLUMNS, some = 4096 / places + 1;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long task = 0; task < groups * down * across; task++) {
        long g = task / (down * across), i = task / across % down * ROWS, j = task % across * COLUMNS;
        for (long first = 0; first < samples; first += some) {
            vector sum[ROWS][COLUMNS];
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 6
                for (int c = 0; c < COLUMNS; c++) sum[r][c] = (vector){0};
            for (long n = first; n < least(first + some, samples); n++) {
                const double *row[ROWS], *column[COLUMNS];
                for (int r = 0; r < ROWS; r++)
                    row[r] = heights + ((n * groups + g) * rows + least(i + r, rows - 1)) * places;
                for (int c = 0; c < COLUMNS; c++)
                    column[c] = images + n * sample_size + g * group_size + at[least(j + c, windows - 1)];
                for (long p = 0; p < places; p += LANES) {
                    vector right[COLUMNS];
#pragma GCC unroll 6
                    for (int c = 0; c < COLUMNS; c++) right[c] = *(const vector *)(column[c] + p);
#pragma GCC unroll 4
                    for (int r = 0; r < ROWS; r++) {
                        vector left = *(const vector *)(row[r] + p);
#pragma GCC unroll 6
                        for (int c = 0; c < COLUMNS; c++) sum[r][c] += left * right[c];
                    }
                }
            }
            for (int r = 0; r < ROWS && i + r < rows; r++)
                for (int c = 0; c < COLUMNS && j + c < windows; c++)
                    for (int lane = 0; lane < LANES; lane++)
                        sums[(g * rows + i + r) * windows + j + c] += sum[r][c][lane];
        }
    }
}
