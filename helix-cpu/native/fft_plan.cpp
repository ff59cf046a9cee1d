// Making and keeping the plans of Fourier transforms.

#include "fft_plan.h"

#include <list>
#include <mutex>

namespace helix {
namespace {

constexpr double PI = 3.14159265358979323846;
constexpr size_t KEPT = 32;  // plans; each holds a sixth as many numbers as the signal that it is for

// n_vectors = odd 2^levels; the top splits into odd moduli, and those `within_top` levels further.
struct Factors {
    int64_t odd;
    int levels, within_top;
};

Factors factors_of(int64_t n_vectors) {
    int levels = 0;
    for (; n_vectors % 2 == 0 && n_vectors > 0; n_vectors /= 2) levels++;
    return {n_vectors, levels, n_vectors == 1 ? 2 : n_vectors == 3 ? 1 : 0};
}

void push(std::vector<float>& table, double angle, double scale = 1) {
    table.push_back(float(std::cos(angle) * scale));
    table.push_back(float(std::sin(angle) * scale));
}

// The angles of the moduli, so many levels further down.
std::vector<double> split(std::vector<double> angles, int levels) {
    for (; levels > 0; levels--) {
        std::vector<double> children;
        children.reserve(2 * angles.size());
        for (double angle : angles) {
            children.push_back(angle / 2);
            children.push_back(angle / 2 + PI);
        }
        angles = std::move(children);
    }
    return angles;
}

}  // namespace

// There are passes of two and of three levels, so none of one; and leaves of W whole vectors.
bool Plan::exists(int64_t n_vectors) {
    const Factors f = factors_of(n_vectors);
    const int below = f.levels - f.within_top;
    return n_vectors > 0 && f.odd <= 7 && f.levels >= LEAF_LEVELS && below >= 0 && below != 1;
}

Plan::Plan(int64_t n) : n_vectors(n) {
    const Factors factors = factors_of(n);
    std::vector<double> roots;
    for (int64_t i = 0; i < factors.odd; i++) roots.push_back((PI / 2 + 2 * PI * double(i)) / double(factors.odd));
    std::vector<double> angles = split(roots, factors.within_top);
    top = int(angles.size());
    for (double angle : angles)
        for (int m = 0; m < top; m++) {
            push(top_powers, angle * m);
            push(top_inverse, angle * m, 1.0 / double(n * W));
        }
    int levels = factors.levels - factors.within_top;
    const int of_two = levels % 3 == 0 ? 0 : levels % 3 == 2 ? 1 : 2;  // passes of two levels, which come last
    while (levels > 0) {
        const int step = levels > 2 * of_two ? 3 : 2;
        levels -= step;
        add_pass(1 << step, int64_t(1) << levels, angles);
        angles = split(std::move(angles), step);
    }
    add_leaf_numbers(split(roots, factors.levels - LEAF_LEVELS));
    add_leaf_vectors();
}

void Plan::add_pass(int radix, int64_t child, const std::vector<double>& angles) {
    Pass pass{radix, child, {}};
    pass.twiddles.reserve(angles.size() * radix * 2);
    for (double angle : angles) {
        push(pass.twiddles, angle / radix + PI / 4);
        for (int k = 1; k < radix; k++) push(pass.twiddles, angle * k / radix);
    }
    passes.push_back(std::move(pass));
}

void Plan::add_leaf_numbers(const std::vector<double>& angles) {
    for (double angle : angles)
        for (int level = 0; level < LEAF_LEVELS; level++) push(leaf_numbers, angle / W / double(2 << level));
}

// Of two sister moduli the second one's twiddle is i times the first one's, which alone is kept.
void Plan::add_leaf_vectors() {
    leaf_vectors.resize(W * W);
    const std::vector<double> lanes = split({0.0}, LEAF_LEVELS);
    for (int lane = 0; lane < W; lane++) {
        float* twiddle = leaf_vectors.data() + lane;
        std::vector<double> moduli{lanes[lane]};
        for (int level = 0; level < LEAF_LEVELS; level++, moduli = split(std::move(moduli), 1))
            for (size_t i = 0; i < moduli.size(); i += 2, twiddle += COMPLEX) {
                twiddle[0] = float(std::cos(moduli[i] / 2));
                twiddle[W] = float(std::sin(moduli[i] / 2));
            }
    }
}

std::shared_ptr<const Plan> plan_for(int64_t n_vectors) {
    static std::mutex mutex;
    static std::list<std::shared_ptr<const Plan>> kept;  // the last used first
    const std::lock_guard<std::mutex> lock(mutex);
    for (auto it = kept.begin(); it != kept.end(); ++it)
        if ((*it)->n_vectors == n_vectors) {
            kept.splice(kept.begin(), kept, it);
            return kept.front();
        }
    kept.push_front(std::make_shared<const Plan>(n_vectors));
    if (kept.size() > KEPT) kept.pop_back();
    return kept.front();
}

}  // namespace helix
