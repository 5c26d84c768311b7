// Numbers as text, byte for byte as Python formats them: '%.7f', but '%.7e' where 0 < |v| < 1e-3.
// Nearly all take integer arithmetic on the exact binary value; the C locale is never asked.
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

// Any finite number, not fast: huge and tiny values, and compilers without 128-bit integers.
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

#ifdef __SIZEOF_INT128__

using wide = unsigned __int128;

struct Powers {
    wide of_ten[23];
    constexpr Powers() : of_ten() {
        of_ten[0] = 1;
        for (int i = 1; i < 23; ++i) of_ten[i] = of_ten[i - 1] * 10;
    }
};
static constexpr Powers POWERS;

// The numbers below 10000, four digits each.
struct Fours {
    char digits[40000];
    Fours() : digits() {
        for (int i = 0; i < 10000; ++i)
            for (int k = 3, rest = i; k >= 0; --k, rest /= 10) digits[4 * i + k] = static_cast<char>('0' + rest % 10);
    }
};
static const Fours FOURS;

struct Pairs {
    char digits[200];
    constexpr Pairs() : digits() {
        for (int i = 0; i < 100; ++i) {
            digits[2 * i] = static_cast<char>('0' + i / 10);
            digits[2 * i + 1] = static_cast<char>('0' + i % 10);
        }
    }
};
static constexpr Pairs PAIRS;

inline void write_pair(char *out, std::uint32_t pair) { std::memcpy(out, PAIRS.digits + 2 * pair, 2); }

inline char *write_seven_digits(char *out, std::uint32_t value) {
    std::memcpy(out, FOURS.digits + 4 * (value / 10000) + 1, 3);
    std::memcpy(out + 3, FOURS.digits + 4 * (value % 10000), 4);
    return out + 7;
}

inline char *write_integer(char *out, std::uint64_t value) {
    if (value < 10000) {
        const int digits = value < 10 ? 1 : value < 100 ? 2 : value < 1000 ? 3 : 4;
        std::memcpy(out, FOURS.digits + 4 * value + 4 - digits, 4);
        return out + digits;
    }
    char text[20];
    char *first = text + 20;
    while (value >= 100) {
        write_pair(first -= 2, static_cast<std::uint32_t>(value % 100));
        value /= 100;
    }
    if (value >= 10) write_pair(first -= 2, static_cast<std::uint32_t>(value));
    else *--first = static_cast<char>('0' + value);
    const std::size_t length = static_cast<std::size_t>(text + 20 - first);
    std::memcpy(out, first, length);
    return out + length;
}

// Nearest integer of product / 2^shift, ties to even as printf does.
inline std::uint64_t round_shift(wide product, int shift) {
    const wide half = wide(1) << (shift - 1);
    const wide rest = product & ((wide(1) << shift) - 1);
    std::uint64_t result = static_cast<std::uint64_t>(product >> shift);
    if (rest > half || (rest == half && (result & 1))) ++result;
    return result;
}

// 1e-3 <= value < 2^39: mantissa * 10^7 has at most 77 bits, the exponent lies in [-62, -14].
inline char *write_fixed(char *out, std::uint64_t mantissa, int exponent) {
    const std::uint64_t scaled = round_shift(wide(mantissa) * 10000000u, -exponent);
    out = write_integer(out, scaled / 10000000u);
    *out++ = '.';
    return write_seven_digits(out, static_cast<std::uint32_t>(scaled % 10000000u));
}

// 2^-49 <= value < 1e-3: mantissa * 10^(7 - decimal) has at most 127 bits.
inline char *write_scientific(char *out, std::uint64_t mantissa, int exponent) {
    // floor(log10(2^(exponent + 52))), which is the decimal exponent or one less.
    int decimal = ((exponent + 52) * 1233 - 4095) / 4096;
    wide product = wide(mantissa) * POWERS.of_ten[7 - decimal];
    if (static_cast<std::uint64_t>(product >> -exponent) >= 100000000u) {
        ++decimal;
        product = wide(mantissa) * POWERS.of_ten[7 - decimal];
    }
    std::uint64_t digits = round_shift(product, -exponent);
    if (digits == 100000000u) {
        digits = 10000000u;
        ++decimal;
    }
    *out++ = static_cast<char>('0' + digits / 10000000u);
    *out++ = '.';
    out = write_seven_digits(out, static_cast<std::uint32_t>(digits % 10000000u));
    std::memcpy(out, "e-", 2);
    write_pair(out + 2, static_cast<std::uint32_t>(-decimal));
    return out + 4;
}

#endif

// At most LONGEST bytes; returns the end.
inline char *write(char *out, double value) {
    if (std::isnan(value)) {
        std::memcpy(out, "nan", 3);
        return out + 3;
    }
    const double size = std::fabs(value);
    const bool scientific = size < 1e-3 && size > 0;
    if (std::signbit(value)) *out++ = '-';
    if (std::isinf(value)) {
        std::memcpy(out, "inf", 3);
        return out + 3;
    }
    if (size == 0) {
        std::memcpy(out, "0.0000000", 9);
        return out + 9;
    }
#ifdef __SIZEOF_INT128__
    // numbers of nodes, positions, iterations and return statuses are whole
    if (size < 0x1p53 && size == static_cast<double>(static_cast<std::int64_t>(size))) {
        out = write_integer(out, static_cast<std::uint64_t>(size));
        std::memcpy(out, ".0000000", 8);
        return out + 8;
    }
    std::uint64_t bits;
    std::memcpy(&bits, &size, 8);
    const std::uint64_t mantissa = (bits & 0xFFFFFFFFFFFFFu) | 0x10000000000000u;
    const int exponent = static_cast<int>(bits >> 52) - 1075;
    if (scientific) {
        if (size >= 0x1p-49) return write_scientific(out, mantissa, exponent);
    } else if (size < 0x1p39) {
        return write_fixed(out, mantissa, exponent);
    }
#endif
    return write_slowly(out, size, scientific);
}

// Least values whose text has 2, 3, … digits before the point: 10^k less half of the last digit, to the nearest double
// that is written with one digit more.
struct Limits {
    static constexpr int N = 13, BITS = 40;
    double least[N];
    // digits of 2^k before the point, less one
    unsigned char digits[BITS];
    Limits() {
        double ten = 10;
        for (double &limit : least) {
            char text[LONGEST];
            const auto written = [&](double value) { return write(text, value) - text; };
            limit = std::nextafter(ten - 5e-8, 0.0);
            while (written(limit) < written(ten)) limit = std::nextafter(limit, ten);
            ten *= 10;
        }
        for (int k = 0; k < BITS; ++k)
            for (digits[k] = 0; std::ldexp(1.0, k) >= least[digits[k]];) ++digits[k];
    }
};

// Number of bytes that `write` writes.
inline std::size_t length(double value, const Limits &limits) {
    const double size = std::fabs(value);
    if ((size >= 1e-3 && size < 1e11) || size == 0) {
        std::uint64_t bits;
        std::memcpy(&bits, &value, 8);
        const int power = static_cast<int>(bits >> 52 & 0x7FF) - 1023;
        // a power of two has as many digits as all numbers up to the next one, or one less
        const std::size_t digits = limits.digits[power < 0 ? 0 : power];
        return 9 + static_cast<std::size_t>(bits >> 63) + digits + (size >= limits.least[digits] ? 1 : 0);
    }
    // a digit, the point, seven digits, and an exponent of two digits
    if (size < 1e-3 && size > 1e-98) return 13 + static_cast<std::size_t>(std::signbit(value));
    char text[LONGEST];
    return static_cast<std::size_t>(write(text, value) - text);
}

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

// Number of bytes of `rows`, without a prefix and with separators of one byte.
inline std::size_t rows_length(const std::vector<Column> &columns, std::size_t n) {
    static const Limits limits;
    std::size_t total = n * columns.size();
    for (const Column &column : columns)
        for (std::size_t row = 0; row < n; ++row) total += length(column[row], limits);
    return total;
}

// Rows of numbers, one of each column, with `separator` between them, each row between `prefix` and a line feed.
inline std::string rows(const std::vector<Column> &columns, std::size_t n, const std::string &prefix,
                        const std::string &separator) {
    std::string text;
    std::size_t used = 0;
    const std::size_t room = prefix.size() + separator.size() + LONGEST + 1;
    text.resize(n * (columns.size() * (12 + separator.size()) + prefix.size() + 1) + room);
    for (std::size_t row = 0; row < n; ++row) {
        for (std::size_t k = 0; k < columns.size(); ++k) {
            if (text.size() - used < room) text.resize(text.size() + text.size() / 2 + room);
            char *out = &text[used];
            if (k && separator.size() == 1) {
                *out++ = separator[0];
            } else {
                const std::string &before = k ? separator : prefix;
                std::memcpy(out, before.data(), before.size());
                out += before.size();
            }
            out = write(out, columns[k][row]);
            if (k + 1 == columns.size()) *out++ = '\n';
            used = static_cast<std::size_t>(out - text.data());
        }
    }
    text.resize(used);
    return text;
}

}  // namespace number_text

#endif
