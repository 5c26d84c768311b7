// Numbers as text, byte for byte as Python formats them: '%.7f', but '%.7e' where 0 < |v| < 1e-3.
// Nearly all take one product in double precision; the C locale is never asked.
#ifndef MPIDVC_NUMBER_TEXT_HPP
#define MPIDVC_NUMBER_TEXT_HPP

#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#if defined(__cpp_lib_to_chars) && !defined(MPIDVC_NO_TO_CHARS)
#define MPIDVC_TO_CHARS 1
#endif

namespace number_text {

// Longest text: -1.797...e308 in full has 309 digits before the point.
constexpr std::size_t LONGEST = 336;

// Any finite number, not fast: huge and tiny values, and those that lie in the middle between two texts.
inline char *write_slowly(char *out, double value, bool scientific) {
#ifdef MPIDVC_TO_CHARS
    auto format = scientific ? std::chars_format::scientific : std::chars_format::fixed;
    return std::to_chars(out, out + LONGEST, value, format, 7).ptr;
#else
    char text[LONGEST];
    const int length = std::snprintf(text, sizeof text, scientific ? "%.7e" : "%.7f", value);
    bool in_point = false;
    for (int i = 0; i < length; ++i) {
        // all other bytes are the locale's decimal point, which may have several
        const bool point = std::strchr("0123456789+-e", text[i]) == nullptr;
        if (!point) *out++ = text[i];
        else if (!in_point) *out++ = '.';
        in_point = point;
    }
    return out;
#endif
}

inline std::uint64_t bits_of(double value) {
    std::uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// The numbers below 10000, four digits each.
struct Fours {
    char digits[40000];
    Fours() : digits() {
        for (int i = 0; i < 10000; ++i)
            for (int k = 3, rest = i; k >= 0; --k, rest /= 10) digits[4 * i + k] = static_cast<char>('0' + rest % 10);
    }
};
static const Fours FOURS;

inline void write_four(char *out, std::uint64_t value) { std::memcpy(out, FOURS.digits + 4 * value, 4); }

inline char *write_integer(char *out, std::uint64_t value) {
    if (value < 10000) {
        const int digits = 1 + (value >= 10) + (value >= 100) + (value >= 1000);
        std::memcpy(out, FOURS.digits + 4 * value + 4 - digits, 4);
        return out + digits;
    }
    out = write_integer(out, value / 10000);
    write_four(out, value % 10000);
    return out + 4;
}

// The decimal point and seven digits.
inline char *write_decimals(char *out, std::uint32_t value) {
    // four digits, the first of which is 0
    write_four(out, value / 10000);
    *out = '.';
    write_four(out + 4, value % 10000);
    return out + 8;
}

// A digit, the decimal point and seven digits, of a number below 10^8.
inline char *write_digits(char *out, std::uint32_t digits) {
    *out = static_cast<char>('0' + digits / 10000000u);
    return write_decimals(out + 1, digits % 10000000u);
}

// The nearest integer of a product below 2^31 that is rounded once; false if that is the middle of two. Rounding never
// moves a product across the middle, but it may move it there, and then only the exact digits tell which is nearer.
inline bool nearest(double product, std::uint32_t &found) {
    // the sum has no digits behind the point, and its last ones are those of the integer
    constexpr double LARGE = 0x1p52;
    const double sum = product + LARGE;
    found = static_cast<std::uint32_t>(bits_of(sum));
    return std::fabs(product - (sum - LARGE)) < 0.5;
}

// 1e-3 <= value < 2^53, or 0.
inline char *write_fixed(char *out, double value) {
    std::uint32_t digits;
    if (value < 10 && nearest(value * 1e7, digits) && digits < 100000000u) return write_digits(out, digits);
    const auto whole = static_cast<std::int64_t>(value);
    // the difference is exact
    if (!nearest((value - static_cast<double>(whole)) * 1e7, digits)) return write_slowly(out, value, false);
    const bool next = digits == 10000000u;
    return write_decimals(write_integer(out, static_cast<std::uint64_t>(whole) + next), next ? 0 : digits);
}

// Powers of ten, exact, and their inverses to the nearest double.
constexpr double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                           1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr double TENTHS[] = {1e0,  1e-1, 1e-2, 1e-3,  1e-4,  1e-5,  1e-6, 1e-7,
                             1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14};
constexpr double LEAST_SCIENTIFIC = 0x1p-49;

// 2^-49 <= value < 1e-3.
inline char *write_scientific(char *out, double value) {
    // value >= 2^-power >= 10^-decimal
    const int power = 1023 - static_cast<int>(bits_of(value) >> 52);
    int decimal = (power * 1233 + 4095) / 4096;
    // at the limit itself both give the same text
    decimal -= value >= TENTHS[decimal - 1];
    std::uint32_t digits;
    if (!nearest(value * TENS[7 + decimal], digits)) return write_slowly(out, value, true);
    if (digits == 100000000u) {
        digits = 10000000u;
        --decimal;
    }
    out = write_digits(out, digits);
    // "e-", and two digits
    write_four(out, static_cast<std::uint64_t>(decimal));
    std::memcpy(out, "e-", 2);
    return out + 4;
}

// At most LONGEST bytes; returns the end. Bytes behind it may be written, too, but not after LONGEST.
inline char *write(char *out, double value) {
    const double size = std::fabs(value);
    char *first = out;
    // numbers of both signs follow each other: a jump here would often be guessed wrongly
    *first = '-';
    first += std::signbit(value) ? 1 : 0;
    if ((size >= 1e-3 && size < 0x1p53) || size == 0) return write_fixed(first, size);
    if (size < 1e-3 && size >= LEAST_SCIENTIFIC) return write_scientific(first, size);
    if (std::isnan(value)) {
        std::memcpy(out, "nan", 3);
        return out + 3;
    }
    if (std::isinf(value)) {
        std::memcpy(first, "inf", 3);
        return first + 3;
    }
    return write_slowly(first, size, size < 1e-3);
}

// Least values whose text has 2, 3, … digits before the point: 10^k less half of the last digit, to the nearest double
// that is written with one digit more.
struct Limits {
    static constexpr int N = 13;
    double least[N];
    Limits() {
        double ten = 10;
        for (double &limit : least) {
            char text[LONGEST];
            const auto written = [&](double value) { return write(text, value) - text; };
            limit = std::nextafter(ten - 5e-8, 0.0);
            while (written(limit) < written(ten)) limit = std::nextafter(limit, ten);
            ten *= 10;
        }
    }
};

// Numbers that are `step` bytes apart.
struct Column {
    const char *first;
    std::ptrdiff_t step;

    double operator[](std::size_t row) const {
        double value;
        std::memcpy(&value, first + static_cast<std::ptrdiff_t>(row) * step, sizeof value);
        return value;
    }
};

// Numbers whose bytes are counted at once.
constexpr std::size_t GROUP = 64;

// Number of bytes that `write` writes of at most GROUP numbers. Magnitudes are in the order of their bits, and a
// difference of these has the bit 63 if it is below 0: the loops have no jumps, and suit vectors of any processor.
inline std::size_t group_length(const Column &column, std::size_t begin, std::size_t n, const Limits &limits) {
    const std::uint64_t fixed = bits_of(1e-3), most = bits_of(1e11), least = bits_of(1e-98);
    std::uint64_t size[GROUP];
    for (std::size_t k = 0; k < GROUP; ++k) size[k] = k < n ? bits_of(column[begin + k]) : 0;
    std::uint64_t more = 0, scientific = 0, odd = 0;
    for (std::size_t k = 0; k < GROUP; ++k) {
        more += size[k] >> 63;
        size[k] &= ~(std::uint64_t(1) << 63);
        const std::uint64_t positive = 0 - size[k];
        scientific += ((size[k] - fixed) & positive) >> 63;
        // longer exponents, more digits than there are limits, and what is no number
        odd |= ((size[k] - least) & positive) | (most - size[k]);
    }
    for (std::size_t k = 0; odd >> 63 && k < n; ++k) {
        const bool tiny = size[k] > 0 && size[k] < least;
        if (!tiny && size[k] <= most) continue;
        // its own bytes instead of those that are counted
        char text[LONGEST];
        const double value = column[begin + k];
        more += static_cast<std::uint64_t>(write(text, value) - text) - 9 - (bits_of(value) >> 63);
        scientific -= tiny;
        size[k] = 0;
    }
    std::uint64_t longer = 1;
    for (const double *limit = limits.least; longer; ++limit) {
        const std::uint64_t below = bits_of(*limit) - 1;
        longer = 0;
        for (std::size_t k = 0; k < GROUP; ++k) longer += (below - size[k]) >> 63;
        more += longer;
    }
    // a digit, the point, and seven digits; an exponent has four bytes
    return 9 * n + more + 4 * scientific;
}

// Number of bytes of the text of rows, without a prefix and with separators of one byte.
inline std::size_t rows_length(const std::vector<Column> &columns, std::size_t n) {
    static const Limits limits;
    std::size_t total = n * columns.size();
    // columns may lie in each other
    for (std::size_t row = 0; row < n; row += GROUP)
        for (const Column &column : columns)
            total += group_length(column, row, n - row < GROUP ? n - row : GROUP, limits);
    return total;
}

// Rows of numbers, one of each column, with `separator` between them, each row between `prefix` and a line feed.
struct Rows {
    std::vector<Column> columns;
    std::size_t n;
    std::string prefix, separator;

    // Most bytes that are written for a row.
    std::size_t longest() const { return prefix.size() + columns.size() * (LONGEST + separator.size()) + 1; }

    // Writes rows from `row` on, as long as another one surely fits; returns the end, `row` is the next one.
    char *write_to(char *out, const char *end, std::size_t &row) const {
        const auto room = static_cast<std::ptrdiff_t>(longest());
        const bool single = separator.size() == 1;
        const char between = single ? separator[0] : ' ';
        for (; row < n && end - out >= room; ++row) {
            std::memcpy(out, prefix.data(), prefix.size());
            out += prefix.size();
            for (std::size_t k = 0; k < columns.size(); ++k) {
                if (single) {
                    *out = between;
                    out += k ? 1 : 0;
                } else if (k) {
                    std::memcpy(out, separator.data(), separator.size());
                    out += separator.size();
                }
                out = write(out, columns[k][row]);
            }
            *out++ = '\n';
        }
        return out;
    }
};

}  // namespace number_text

#endif
