/* lanes_math.h: numerics.h's functions in sixteen lanes. Included once for each instruction set,
 * after its lanes_*.h; see lanes.h. */

V_INLINE VF V(exp)(VF x)
{
    VF magic = V(set1)(KN_ROUND_MAGIC);
    x = V(min)(V(set1)(KN_EXP_MAX), x);
    x = V(max)(V(set1)(KN_EXP_MIN), x);
    VF t = V(fma)(x, V(set1)(KN_LOG2E), magic);
    VF n = V(sub)(t, magic);
    VF r = V(fma)(n, V(set1)(-KN_LN2_HI), x);
    r = V(fma)(n, V(set1)(-KN_LN2_LO), r);
    VF p = V(fma)(V(set1)(KN_EXP_C6), r, V(set1)(KN_EXP_C5));
    p = V(fma)(p, r, V(set1)(KN_EXP_C4));
    p = V(fma)(p, r, V(set1)(KN_EXP_C3));
    p = V(fma)(p, r, V(set1)(KN_EXP_C2));
    p = V(fma)(p, r, V(set1)(1.0f));
    p = V(fma)(p, r, V(set1)(1.0f));
    VI e = V(isub)(V(bits)(t), V(bits)(magic));
    VI a = V(sar)(e, 1);
    VI b = V(isub)(e, a);
    VI bias = V(iset1)(127);
    p = V(mul)(p, V(floats)(V(shl)(V(iadd)(a, bias), 23)));
    return V(mul)(p, V(floats)(V(shl)(V(iadd)(b, bias), 23)));
}

V_INLINE VF V(log)(VF x)
{
    VI u = V(bits)(x);
    VI e = V(sar)(V(isub)(u, V(iset1)((int32_t)KN_SQRT_HALF_BITS)), 23);
    VF f = V(sub)(V(floats)(V(isub)(u, V(shl)(e, 23))), V(set1)(1.0f));
    VF n = V(itof)(e);
    VF s = V(mul)(f, f);
    VF p = V(fma)(V(set1)(KN_LOG_C8), f, V(set1)(KN_LOG_C7));
    p = V(fma)(p, f, V(set1)(KN_LOG_C6));
    p = V(fma)(p, f, V(set1)(KN_LOG_C5));
    p = V(fma)(p, f, V(set1)(KN_LOG_C4));
    p = V(fma)(p, f, V(set1)(KN_LOG_C3));
    p = V(fma)(p, f, V(set1)(KN_LOG_C2));
    p = V(fma)(p, f, V(set1)(KN_LOG_C1));
    p = V(fma)(p, f, V(set1)(KN_LOG_C0));
    VF y = V(mul)(s, V(mul)(f, p));
    y = V(fma)(n, V(set1)(KN_LN2_LO), y);
    y = V(fma)(V(set1)(-0.5f), s, y);
    y = V(add)(f, y);
    return V(fma)(n, V(set1)(KN_LN2_HI), y);
}

V_INLINE VF V(tanh)(VF x)
{
    VI sign = V(iand)(V(bits)(x), V(iset1)(INT32_MIN));
    VF a = V(floats)(V(ixor)(V(bits)(x), sign));
    VF z = V(mul)(x, x);
    VF p = V(fma)(V(set1)(KN_TANH_C5), z, V(set1)(KN_TANH_C4));
    p = V(fma)(p, z, V(set1)(KN_TANH_C3));
    p = V(fma)(p, z, V(set1)(KN_TANH_C2));
    p = V(fma)(p, z, V(set1)(KN_TANH_C1));
    p = V(fma)(p, z, V(set1)(KN_TANH_C0));
    VF small = V(fma)(V(mul)(x, z), p, x);
    VF one = V(set1)(1.0f);
    VF y = V(sub)(one, V(div)(V(set1)(2.0f), V(add)(V(exp)(V(add)(a, a)), one)));
    y = V(floats)(V(ior)(V(bits)(y), sign));
    return V(select)(V(less)(a, V(set1)(KN_TANH_SMALL)), small, y);
}

/* x / (1 + exp(-u)). */
V_INLINE VF V(gate)(VF x, VF u)
{
    VF minus_u = V(floats)(V(ixor)(V(bits)(u), V(iset1)(INT32_MIN)));

    return V(div)(x, V(add)(V(set1)(1.0f), V(exp)(minus_u)));
}

V_INLINE VF V(silu)(VF x)
{
    return V(gate)(x, x);
}

V_INLINE VF V(gelu)(VF x)
{
    VF u = V(mul)(x, V(fma)(V(set1)(KN_GELU_C3), V(mul)(x, x), V(set1)(KN_GELU_C1)));

    return V(gate)(x, u);
}
