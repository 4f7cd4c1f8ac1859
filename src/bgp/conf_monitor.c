/* What operators want to see from outside: BMP stations and MRT files. */
#include "bgp/conf_int.h"

enum {
    BMP_PORT = 11019, /* none is assigned; collectors listen here */
    STATISTICS_S = 60,
    ROTATE_S = 900,
    KEEP = 100,
    DAY_S = 86400,
};

static void read_stations(struct build *b, const struct jnode *list) {
    struct bgp_conf *o = b->out;
    o->stations = arena_array(b->a, struct conf_station, list ? list->n : 0);
    jnode_each (it, list) {
        struct conf_station s = {.statistics_s =
                                     conf_seconds(it, "statisticsInterval", DAY_S, STATISTICS_S)};
        if (conf_where(conf_str(it, "address"), &s.address, &s.port)) {
            s.port = s.port ? s.port : BMP_PORT;
            o->stations[o->n_stations++] = s;
        } /* else the datastore's check says so */
    }
}

void conf_read_monitor(struct build *b) {
    const struct jnode *mrt = conf_setting(b, "mrt");
    struct conf_mrt *m = &b->out->mrt;
    read_stations(b, conf_setting(b, "bmpStations"));
    if (!mrt) {
        return;
    }
    m->directory = arena_dup(b->a, conf_str(mrt, "directory"));
    m->rotate_s = conf_seconds(mrt, "rotateInterval", DAY_S, ROTATE_S);
    m->rotate_s = m->rotate_s ? m->rotate_s : 1;
    m->table_s = conf_seconds(mrt, "tableInterval", DAY_S, 0);
    m->keep = (uint32_t)conf_int(mrt, "keep", KEEP);
}
